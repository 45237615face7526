"""Kill hosts, nodes and the driver at fifty seeded points, and write what came of it to docs/reliability.md.

`make chaos`. See `points.py` for what a point is, `schedule.py` for how they are drawn. Hosts die on an embedded Ray,
nodes in a cluster on this machine, drivers in processes of their own, whose runs `kdmesh resume` then takes to the end.
A point passes if somebody died there and weights, metrics and rounds equal the unbroken run's.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from doomed import Doomed  # noqa: E402
from left import remaining  # noqa: E402
from nodes import Nodes  # noqa: E402
from points import KINDS, VICTIMS, Deaths, Point, deaths, mortal  # noqa: E402
from schedule import MESHES, SEED, SHARES, Unbroken, draw, mesh, outcome, unbroken  # noqa: E402

from kdmesh.backends import Session  # noqa: E402
from kdmesh.engine.launch import run_once  # noqa: E402
from kdmesh.engine.request import Request  # noqa: E402
from kdmesh.errors import MeshError  # noqa: E402
from kdmesh.spec.yaml12 import dump  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
MARK = "KDMESH_CHAOS"


class Row(NamedTuple):
    """What came of a point."""

    point: Point
    call: str
    losses: int
    verdict: str


def main() -> None:
    """Run everything."""
    options = argparse.ArgumentParser(description=__doc__)
    for victim, share in SHARES.items():
        options.add_argument(f"--{victim}", type=int, default=share, help="how many such points")
    options.add_argument("--topologies", nargs="+", default=MESHES, choices=MESHES)
    options.add_argument("--no-page", action="store_true", help="leave docs/reliability.md as it is")
    asked = options.parse_args()
    os.environ[MARK] = mark = os.urandom(16).hex()
    torch.set_num_threads(1)
    start, rows = time.perf_counter(), list[Row]()
    with tempfile.TemporaryDirectory(prefix="kdmesh-") as name:
        home = Path(name)
        runs = {name: unbroken(name, home / "unbroken") for name in asked.topologies}
        points = draw(runs, SEED, {victim: getattr(asked, victim) for victim in VICTIMS})
        for row in every(points, runs, home):
            rows.append(row)
            print(
                f"{len(rows):2} {time.perf_counter() - start:5.0f} s  {row.point}: {row.call}, {row.verdict}",
                flush=True,
            )
    left = remaining(f"{MARK}={mark}")
    passed = sum(row.verdict == "equal" for row in rows)
    said = f"{passed} of {len(rows)} points end with the unbroken run's weights and metrics"
    said += f"; {time.perf_counter() - start:.0f} s in all; left behind: {', '.join(left) or 'nothing'}"
    print(said)
    if not asked.no_page:
        write(rows, said)
    sys.exit(passed < len(rows) or bool(left))


def every(points: list[Point], runs: dict[str, Unbroken], home: Path) -> Iterator[Row]:
    """Go through all points, by who dies."""
    for number, point in enumerate(point for point in points if point.victim == "driver"):
        yield driver(point, runs[point.topology], home / f"driver-{number}", "inline" if (number + 1) % 5 else "ray")
    if dying := [point for point in points if point.victim in ("host", "two")]:
        with Session("ray") as session:
            yield from hosts(session, dying, runs, home / "hosts")
    if dying := [point for point in points if point.victim == "node"]:
        most = max(len({call.host for call in runs[point.topology].calls}) for point in dying)
        with Nodes((most + 1) // 2 + 1) as nodes, Session("ray", nodes.cluster.address) as session:
            yield from hosts(session, dying, runs, home / "nodes", nodes.mend)


def hosts(
    session: Session,
    points: list[Point],
    runs: dict[str, Unbroken],
    home: Path,
    mend: Callable[[], int] = lambda: 0,
) -> Iterator[Row]:
    """Run with hosts that die, one or more at a time; ``mend`` puts a node in a dead one's place."""
    with mortal(session, home):
        for number, point in enumerate(points):
            events: Counter[str] = Counter()
            listen = (lambda event, events=events: events.update([event.kind]),)
            with deaths(session, home, str(number), (point,)) as planned:
                request = Request(mesh(point.topology), checkpoint_seconds=0.5, listeners=listen)
                try:
                    found = outcome(run_once(request, session=session)[0])
                    same = found == runs[point.topology].outcome and events["host_lost"] > 0
                    verdict = "equal" if same else "DIFFER"
                except MeshError as error:
                    verdict = f"FAILED: {error.what}"
            died = mend()
            if point.victim == "node" and died != 1 and verdict == "equal":
                verdict = f"FAILED: {died} nodes died"
            yield Row(point, ", ".join(planned.happened()) or "nobody died", events["host_lost"], verdict)


def driver(point: Point, run: Unbroken, folder: Path, backend: str) -> Row:
    """Run in a process that dies, and resume."""
    planned = Deaths.plan(folder / "points", (point,))
    command = Doomed(folder, dump(mesh(point.topology).dump()), planned, "--checkpoint-seconds", "0.3")
    try:
        code, said = command.end()  # an error if a process or a folder of it stays
        call = ", ".join(planned.happened()) or "nobody died"
        if code == -signal.SIGKILL:
            command.resume("--backend", backend)
            code, said = command.end()
            if code == 0:
                same = outcome(command.summary()) == run.outcome
                return Row(point, call, 1, "equal" if same else "DIFFER")
        return Row(point, call, 0, f"FAILED: exit code {code}: {' '.join(said.split())[-200:]}")
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return Row(point, ", ".join(planned.happened()), 0, f"FAILED: {error}")
    finally:
        command.process.kill()


def write(rows: list[Row], said: str) -> None:
    """Put the rows on the page."""
    page = ROOT / "docs" / "reliability.md"
    text = page.read_text(encoding="utf-8")
    grid = ["| | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for victim in VICTIMS:
        count = Counter(row.point.kind for row in rows if row.point.victim == victim)
        grid.append(f"| {victim} | " + " | ".join(str(count[kind]) for kind in KINDS) + " |")
    table = ["| # | point | the call | losses | weights |", "|---|---|---|---|---|"]
    table += [
        f"| {number} | {row.point} | {row.call} | {row.losses} | {row.verdict} |" for number, row in enumerate(rows, 1)
    ]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    parts = [before + BEGIN, "", f"Seed {SEED}: {said}.", "", *grid, "", *table, "", END + after]
    page.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
