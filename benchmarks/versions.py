"""Training throughput of this checkout against another one, interleaved in one run.

Each case of ``throughput.py`` (live, and with the store) and of ``text_step.py`` is run in two processes, one of each
checkout, with its own kdmesh and its own benchmark scripts. They take turns, and change who is first. Times are CPU
seconds of one thread; the ratio is the median of the paired ratios of the time there to the time here, so that above 1
this checkout is faster. A row under 0.97 is a MISS.
Run: ``git worktree add ../before COMMIT; python benchmarks/versions.py ../before [--turns N] [--only CASES]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

FLOOR = 0.97
HERE = Path(__file__).resolve().parent.parent


def serve(case: str, turns: int) -> None:
    """Answer each line that comes with the seconds of one more turn of a case."""
    import text_step
    import throughput
    import torch

    torch.set_num_threads(1)
    throughput.keep_memory()  # each checkout's own script knows where kdmesh has it
    turn: Callable[[], object]
    if case.startswith("text, "):
        (chosen,) = (one for one in text_step.CASES if f"text, {one.name}" == case)
        text_step.LR = 1e-4  # what is learned is of no interest
        chosen = text_step.Case(**{**vars(chosen), "blocks": turns + 2})
        mesh, blocks = text_step.Mesh(chosen), iter(range(turns + 2))

        def turn() -> float:
            first, start = next(blocks) * chosen.steps, time.process_time()
            mesh(first, first + chosen.steps)
            return time.process_time() - start
    else:
        family, kind, refresh = case.split(", ")
        table = throughput.data(family)
        names, fields, _ = throughput.CASES[kind](family)
        modules = throughput.loops.modules(fields, names, table)

        def turn() -> float:
            return throughput.seconds(fields, modules, table, refresh)

    for _ in sys.stdin:
        print(turn(), flush=True)


def lacks(tree: Path, case: str) -> bool:
    """Whether a checkout is from before there was such a case."""
    family = case.split(", ")[0]
    return family != "text" and f'"{family}":' not in (tree / "benchmarks" / "throughput.py").read_text()


def cases() -> Iterator[str]:
    """The name of every case."""
    import text_step
    import throughput

    for family in throughput.MODELS:
        for kind, make in throughput.CASES.items():
            yield f"{family}, {kind}, step"
            if make(family)[2]:
                yield f"{family}, {kind}, once"
    yield from (f"text, {case.name}" for case in text_step.CASES)


def start(tree: Path, case: str, turns: int) -> subprocess.Popen[str]:
    """A process that runs a case with a checkout's code."""
    path = os.pathsep.join([str(tree), str(tree / "benchmarks")])
    return subprocess.Popen(
        [sys.executable, "-P", __file__, str(tree), "--serve", case, "--turns", str(turns)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, cwd=tree,
    )  # fmt: skip


def row(other: Path, case: str, turns: int) -> str:
    """Measure one case in both checkouts and return its line."""
    sides = {"there": start(other, case, turns), "here": start(HERE, case, turns)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):  # the first is not counted
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            to, back = sides[name].stdin, sides[name].stdout
            assert to is not None and back is not None
            to.write("again\n")
            times[name].append(float(back.readline()))
    for side in sides.values():
        side.communicate()
    ratios = sorted(there / here for there, here in list(zip(*times.values(), strict=True))[1:])
    middle = {name: statistics.median(values[1:]) for name, values in times.items()}
    ratio, quarter = statistics.median(ratios), len(ratios) // 4
    told = f"{case:34}{middle['there']:9.3f}{middle['here']:9.3f}{ratio:8.3f}"
    return f"{told}   {ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}{'' if ratio >= FLOOR else '  MISS'}"


def main() -> None:
    """Measure every case and print the table."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("other", type=Path, help="the other checkout")
    options.add_argument("--turns", type=int, default=15, help="turns of each side (default: %(default)s)")
    options.add_argument("--only", default="", help="cases with this in their name")
    options.add_argument("--serve", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.serve:
        serve(given.serve, given.turns)
        return
    began, missed = time.perf_counter(), 0
    print(f"one thread, {given.turns} interleaved turns, medians; CPU s of a turn, middle half of the ratios\n")
    print(f"{'case':34}{'there':>9}{'here':>9}{'ratio':>8}   quartiles")
    for case in cases():
        if given.only in case and lacks(given.other, case):
            print(f"{case:34} is not there yet")
        elif given.only in case:
            line = row(given.other.resolve(), case, given.turns)
            missed += line.endswith("MISS")
            print(line, flush=True)
    print(f"\n{missed} rows are slower by more than 3%; {time.perf_counter() - began:.0f} s in all")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
