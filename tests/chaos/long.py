"""Kill hosts and the driver at fifty seeded points, and write what came of it to docs/reliability.md (`make chaos`).

Hosts: 40 points, drawn for six topologies from the calls of an unbroken run, each method as likely as any other, before
or after the call; every eighth run loses two hosts. Driver: 10 kills at the n-th checkpoint of a run in its own
process, which `kdmesh resume` then takes to its end. A point passes if weights and metrics equal the unbroken run's.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE), str(HERE.parent)]

from kdmesh.backends import Session  # noqa: E402
from kdmesh.engine.launch import Request, run_once  # noqa: E402

SEED = 20261123
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"


def main() -> None:
    """Run everything."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hosts", type=int, default=40, help="0: keep the rows of the run before")
    options.add_argument("--driver", type=int, default=10)
    asked = options.parse_args()
    rows: list[tuple[str, str, str, str]] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as root:
        rows += hosts(Path(root), asked.hosts) if asked.hosts else kept()
        rows += driver(Path(root), asked.driver)
    passed = sum(row[3] == "equal" for row in rows)
    seconds = time.perf_counter() - start
    said = f"{passed} of {len(rows)} points end with the unbroken run's weights and metrics; {seconds:.0f} s in all"
    print(said)
    page = ROOT / "docs" / "reliability.md"
    text = page.read_text(encoding="utf-8")
    table = ["| # | topology | dies | losses | weights |", "|---|---|---|---|---|"]
    table += [f"| {number} | " + " | ".join(row) + " |" for number, row in enumerate(rows, 1)]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(
        "\n".join([before + BEGIN, "", *table, "", f"Seed {SEED}: {said}.", "", END + after]), encoding="utf-8"
    )
    sys.exit(passed < len(rows))


def kept() -> list[tuple[str, str, str, str]]:
    """The rows of hosts that stand on the page."""
    lines = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [(a, b, c, d) for _, a, b, c, d in cells[1:] if not b.startswith("driver")]


def hosts(root: Path, count: int) -> list[tuple[str, str, str, str]]:
    """Kill actors."""
    import points

    rows = []
    with Session("ray") as session:
        drawn, expected = {}, {}
        for number, name in enumerate(points.MESHES):
            spec = points.mesh(name)
            expected[name] = points.outcome(run_once(Request(spec, "inline"))[0])
            with points.deaths(root / name, ()), points.own_actors(session):
                run_once(Request(spec, checkpoint_seconds=0.5), session=session)
            drawn[name] = points.draw(points.calls(root / name), 2 * count // len(points.MESHES) + 2, SEED + number)
        for number in range(count):
            name = points.MESHES[number % len(points.MESHES)]
            dying = tuple(drawn[name].pop() for _ in range(2 if number % 8 == 7 else 1))
            lost: list[str] = []
            listen = (lambda event, lost=lost: lost.append(event["host"]) if event["event"] == "host_lost" else None,)
            with points.deaths(root / f"{name}-{number}", dying), points.own_actors(session):
                request = Request(points.mesh(name), checkpoint_seconds=0.5, listeners=listen)
                summary, _, _ = run_once(request, session=session)
            verdict = "equal" if points.outcome(summary) == expected[name] and lost else "DIFFER"
            rows.append((name, "; ".join(map(str, dying)), str(len(lost)), verdict))
            print(number + 1, *rows[-1], flush=True)
    return rows


def driver(root: Path, count: int) -> list[tuple[str, str, str, str]]:
    """Kill drivers."""
    import points
    from commands import PATIENCE, Command

    from kdmesh.spec.yaml12 import dump

    rng, rows = random.Random(SEED), []
    for number in range(count):
        name = points.MESHES[number % len(points.MESHES)]
        spec = points.mesh(name)
        expected = points.outcome(run_once(Request(spec, "inline"))[0])
        alive, wanted = False, rng.randint(1, 4) + 1
        while not alive and wanted > 1:  # a run that ends before so many is killed earlier
            wanted -= 1
            folder = root / f"driver-{number}-{wanted}"
            folder.mkdir()
            command = Command(folder, dump(spec.dump()), "--checkpoint-seconds", "0.3")
            deadline = time.monotonic() + PATIENCE
            while written(command.out) < wanted:
                if command.process.poll() is not None or time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            alive = command.process.poll() is None
            command.process.kill()
            command.end()
        command.resume("--backend", "inline")
        code, said = command.end()
        same = alive and code == 0 and points.outcome(command.summary()) == expected
        rows.append((name, f"driver at {wanted} checkpoints", "1", "equal" if same else "DIFFER"))
        print(*rows[-1], said if code else "", flush=True)
    return rows


def written(out: Path) -> int:
    """How many checkpoints a run has written, those that are gone again too."""
    last: dict[Path, int] = {}
    for manifest in out.glob("*/*/checkpoints/*/*/manifest.json"):
        stage = manifest.parents[1]
        last[stage] = max(last.get(stage, 0), int(manifest.parent.name))
    return sum(last.values())


if __name__ == "__main__":
    main()
