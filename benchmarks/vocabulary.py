"""Losses over a vocabulary of 151,936 words, in chunks against dense: memory and time of forward and backward.

512 tokens; a student of width 256 and teachers of width 512, each with its own layer of 151,936 rows. *Dense* makes the
logits of both sides and leaves the rest to autograd; *chunks* is the same call of the same objective with lazy logits.
Memory is what one call adds at its peak to a process that holds the models and has made a small call of the same kind:
`VmHWM` after it less `VmHWM` before, each in a process of its own, where glibc gives large blocks back once they are
free, as is its default. Times are CPU seconds of one thread, the two ways in turn after a call of each; the ratio is
the median of the paired ratios. The first row is timed with glibc's defaults too, as a plain loop has them; there the
dense way pays for page faults. All others keep freed memory, as kdmesh's processes do. The Jensen-Shannon divergence
must add at most 0.4 GB and take at most 0.6 times as long. The plain divergences are little more than their products
of matrices (2.2 s of the dense way and 2.4 s of the other when this was written): chunks save them memory, not time.
Run: ``python benchmarks/vocabulary.py [--quick]``.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import re
import statistics
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional as F

from kdmesh.builtin.objectives import _chunked
from kdmesh.hosts.memory import keep_memory
from kdmesh.objectives import JSD, ForwardKL, ReverseKL, SkewedKL
from kdmesh.signals.lazy import FactoredLogits, MixedLogits

WORDS, TOKENS, STUDENT, TEACHER = 151_936, 512, 256, 512
CASES = {  # objective, teachers
    "jsd, beta 0.5": (JSD(0.5), 1),
    "forward kl": (ForwardKL(), 1),
    "reverse kl": (ReverseKL(), 1),
    "skewed kl": (SkewedKL(), 1),
    "jsd, mixture of 3 teachers": (JSD(0.5), 3),
}
BOUNDED, MEMORY, RATIO = "jsd, beta 0.5", 0.4, 0.6
WAYS = ("dense", "chunks")


class Case:
    """A student, its teachers and an objective."""

    def __init__(self, name: str, words: int = WORDS, tokens: int = TOKENS) -> None:
        self.objective, teachers = CASES[name]
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.empty(shape).normal_(std=0.3, generator=generator)

        self.student = [normal(tokens, STUDENT).requires_grad_(), normal(words, STUDENT).requires_grad_()]
        self.teachers = [(normal(tokens, TEACHER), normal(words, TEACHER)) for _ in range(teachers)]
        self.form = "logits" if teachers == 1 else "probs"

    def __call__(self, way: str) -> float:
        """Forward and backward; returns the loss."""
        for part in self.student:
            part.grad = None
        if way == "dense":
            own, others = F.linear(*self.student), [F.linear(*teacher) for teacher in self.teachers]
            target = others[0] if len(others) == 1 else mixed(others)
        else:
            own, lazies = FactoredLogits(*self.student), [FactoredLogits(*teacher) for teacher in self.teachers]
            target = lazies[0] if len(lazies) == 1 else MixedLogits(lazies, mixed)
        loss = self.objective.forward(own, target, form=self.form)
        loss.backward()
        return loss.item()


def mixed(logits: list[torch.Tensor], where: slice | torch.Tensor | None = None) -> torch.Tensor:
    """The mean of the teachers' distributions."""
    return torch.stack(logits).softmax(-1).mean(0)


def high_water() -> float:
    """The most memory that this process has had, in GB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e9


def added(name: str, way: str) -> float:
    """Measure, in this process, what one call adds at its peak, in GB."""
    large, _chunked.LARGE = _chunked.LARGE, 0
    Case(name, words=1000, tokens=8)(way)
    _chunked.LARGE = large
    case = Case(name)
    before = high_water()
    case(way)
    return high_water() - before


@cache
def peak(name: str, way: str) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def timed(case: Case, way: str) -> tuple[float, float]:
    """CPU seconds of one call, and the loss."""
    start = time.thread_time()
    loss = case(way)
    return time.thread_time() - start, loss


def row(name: str, runs: int, label: str = "") -> tuple[str, bool]:
    """Measure one case; returns its line and whether it keeps its bounds."""
    gigabytes = {way: peak(name, way) for way in WAYS}
    case = Case(name)
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    losses = {}
    for way in WAYS:
        case(way)
    for _ in range(runs):
        for way in WAYS:
            seconds, losses[way] = timed(case, way)
            taken[way].append(seconds)
    ratio = statistics.median(b / a for a, b in zip(*taken.values(), strict=True))
    apart = abs(losses["chunks"] / losses["dense"] - 1)
    times = (statistics.median(seconds) for seconds in taken.values())
    fine = name != BOUNDED or (gigabytes["chunks"] <= MEMORY and ratio <= RATIO)
    cells = [f"{value:10.2f}" for value in (*gigabytes.values(), *times, ratio)]
    return f"{label or name:28}{''.join(cells)}{apart:10.0e}" + ("" if fine else "  MISS"), fine


def main() -> None:
    """Measure every case and print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="the bounded case, once")
    options.add_argument("--memory", nargs=2, metavar=("CASE", "WAY"), help="measure memory in this process")
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print(added(*given.memory))
        return
    runs = 1 if given.quick else 3
    print(f"torch {torch.__version__}, one thread, {runs} interleaved runs, medians; GB added at the peak, CPU seconds")
    print("apart: how far the two losses are, relatively\n")
    heads = ("dense GB", "chunks GB", "dense s", "chunks s", "ratio", "apart")
    print(f"{'case':28}" + "".join(f"{head:>10}" for head in heads))
    kept = True
    rows = [(BOUNDED, f"{BOUNDED}, plain loop"), *((name, "") for name in ([BOUNDED] if given.quick else CASES))]
    for name, label in rows:
        if not label:
            keep_memory()
        line, fine = row(name, runs, label)
        print(line, flush=True)
        kept = kept and fine
    sys.exit(not kept)


if __name__ == "__main__":
    main()
