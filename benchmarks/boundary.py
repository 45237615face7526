"""What it costs to check what plugins give: type, shape, dtype, device, gradient, work in place, in every call.

Meshes of MLPs of 12k parameters, inline, one thread: CPU seconds of a run with the checks and with them left out (the
functions that check do nothing, and the calls of them stay), in turn, five times. Printed are CPU milliseconds a step,
medians, the median of the paired ratios with their quartiles, and, since that is about as large as its noise,
the time of the checks by themselves: calls a step, counted, by microseconds a call, timed alone on arguments of such a
run. Run: ``python benchmarks/boundary.py``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import loops
import throughput
import torch

from kdmesh.hosts import guard
from kdmesh.hosts.agent import Agent
from kdmesh.hosts.memory import keep_memory

RUNS, CALLS = 5, 20_000
CHECKS = (
    (guard, "marks", lambda values: []),
    (guard, "refuse_loss", lambda loss, own: None),
    (guard, "refuse_values", lambda *given: None),
    (Agent, "_sound", lambda agent, x, logits: logits),
)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    keep_memory()
    table = throughput.data("mlp")
    steps = throughput.EPOCHS["mlp"] * len(table) // throughput.TRAIN["batch_size"]
    for case in ("one teacher", "three teachers", "two peers"):
        names, mesh, _ = throughput.CASES[case]("mlp")
        modules = loops.modules(mesh, names, table)
        about = mesh, modules, table
        spent: dict[bool, list[float]] = {False: [], True: []}
        run(*about, False)
        for turn in range(RUNS):
            for without in (False, True) if turn % 2 else (True, False):
                spent[without].append(run(*about, without))
        ratios = [some / none for some, none in zip(spent[False], spent[True], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        with_, without = (statistics.median(spent[one]) / steps * 1000 for one in (False, True))
        alone, words = by_themselves(*about, steps)
        print(
            f"{case:15} {with_:.3f} ms/step with, {without:.3f} without, ratio {middle:.3f} [{low:.3f}, {high:.3f}]; "
            f"by themselves {alone:.1f} us/step, {alone / with_ / 10:.2f}%: {words}"
        )


def run(mesh: Any, modules: Any, table: Any, without: bool) -> float:
    """CPU seconds of a run, with the checks or without."""
    with ExitStack() as stack:
        for holder, name, nothing in CHECKS if without else ():
            stack.enter_context(patch.object(holder, name, nothing))
        return throughput.seconds(mesh, modules, table, "step")


def by_themselves(mesh: Any, modules: Any, table: Any, steps: int) -> tuple[float, str]:
    """Microseconds a step that the checks take, timed alone, and of what they are made up."""
    counts: Counter[str] = Counter()
    given: dict[str, tuple[Any, ...]] = {}
    known = {name: getattr(holder, name) for holder, name, _ in CHECKS}

    def counted(name: str) -> Any:
        def call(*args: Any) -> Any:
            counts[name] += 1
            given[name] = args
            return known[name](*args)

        return call

    with ExitStack() as stack:
        for holder, name, _ in CHECKS:
            stack.enter_context(patch.object(holder, name, counted(name)))
        throughput.seconds(mesh, modules, table, "step")
    total, words = 0.0, []
    for name, count in counts.items():
        start = time.process_time()
        for _ in range(CALLS):
            known[name](*given[name])
        each = (time.process_time() - start) / CALLS * 1e6
        total += count / steps * each
        words.append(f"{name} {count / steps:.1f} x {each:.2f}")
    return total, ", ".join(words)


if __name__ == "__main__":
    main()
