"""What a run's recording costs it: the run as it is against the same run with parts of its recording turned off.

Whole runs with a folder, from the request to the last file, of a student and one frozen teacher: CPU seconds of the
process, torch on one thread, so that a busy machine disturbs little. The same mesh runs in turn as it is, without the
answers to test samples, without curves, without costs (timing of ops, FLOPs, memory, energy), and without all three,
which this script does by putting something empty in their place; each seven times, or `--turns`. For each part stands
what the run as it is takes longer: median and quartiles of the paired ratios. All together must stay under 2%. Runs are
short, about two seconds, so that what is paid once weighs more here than in a long run. Each flow's loss is read at
every step, also where curves are off; what that takes by itself stands below. The page at the end is apart: a run
writes it only where it expects that to take under 2% of its time; what one took, and from how long a run on it is
written, stands below.
Run: ``python benchmarks/recording.py [--quick] [--only CASE] [--turns N]``.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["KDMESH_PLUGINS"] = ""  # an observer that happens to be installed would be measured, too
os.environ["KDMESH_STORE"] = "off"  # the teacher answers in every run

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from kdmesh.engine.costs import Meter
from kdmesh.engine.curves import Curve
from kdmesh.engine.experiment import Experiment
from kdmesh.engine.request import Request
from kdmesh.hosts.costs import Clock
from kdmesh.hosts.memory import keep_memory
from kdmesh.hosts.update import Update
from kdmesh.report.page.at_end import SHARE, estimate
from kdmesh.report.page.blocks import PAGE
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import save
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table

LIMIT = 0.02  # of a run
TRAIN, HELD_OUT = 4096, 1024  # samples; of those held out, half are for test
BATCH, FLOWS = 64, 2
CASES: dict[str, tuple[dict[str, Any], int]] = {  # the models of throughput.py, and epochs
    "mlp": ({"mlp": {"hidden": [160]}}, 40),
    "digits cnn": ({"cnn": {"width": 16}}, 8),
}


class Nowhere(list[Any]):
    """A list that keeps nothing."""

    def append(self, one: Any) -> None:
        """Forget it."""


def nothing(*_: Any) -> Iterator[Any]:
    """An iterator, or a generator of the engine, without anything."""
    return iter(())


@contextmanager
def without_answers() -> Iterator[None]:
    """Nobody's answers are kept or written."""

    def gathered(_: Any) -> Iterator[Any]:
        yield from ()
        return None, {"file": None, "why": "turned off"}

    with patch("kdmesh.hosts.answered.keep", lambda *_, **__: None), patch("kdmesh.engine.run.gathered", gathered):
        yield


@contextmanager
def without_curves() -> Iterator[None]:
    """No step's losses are kept, added up or told."""
    made = Update.__init__

    def init(self: Update, *given: Any, **more: Any) -> None:
        made(self, *given, **more)
        assert self._by_flow == []  # what its steps append to; another name would turn nothing off
        self._by_flow = Nowhere()

    hosts = patch.object(Update, "__init__", init), patch.object(Update, "told", lambda self: [])
    driver = patch.object(Curve, "add", nothing), patch.object(Curve, "rest", nothing)
    with hosts[0], hosts[1], driver[0], driver[1]:
        yield


@contextmanager
def without_costs() -> Iterator[None]:
    """No op is timed, and nothing is read or counted at the ends."""

    def counted(*_: Any) -> Iterator[Any]:
        yield from ()
        return {}

    timed, read = patch.object(Clock, "due", lambda self: False), patch.object(Meter, "__init__", lambda self: None)
    with timed, read, patch("kdmesh.engine.run.counted", counted):
        yield


@contextmanager
def without_all() -> Iterator[None]:
    """None of the three."""
    with without_answers(), without_curves(), without_costs():
        yield


WAYS: dict[str, Callable[[], Any]] = {
    "as it is": ExitStack,
    "answers": without_answers,
    "curves": without_curves,
    "costs": without_costs,
    "all three": without_all,
}


def main() -> None:
    """Measure every case and print what each part costs."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="two runs of a quarter of the length instead of seven")
    options.add_argument("--only", choices=CASES, help="one case")
    options.add_argument("--turns", type=int, default=7, help="how many runs of each, where a machine is not quiet")
    given = options.parse_args()
    runs, share = (2, 4) if given.quick else (given.turns, 1)
    torch.set_num_threads(1)
    keep_memory()
    print(f"torch {torch.__version__}, one thread, {runs} interleaved runs; what a run takes longer with each\n")
    print(f"{'case':14}{'part':12}{'median':>9}{'quartiles':>20}")
    with tempfile.TemporaryDirectory() as root:
        for case, (model, epochs) in CASES.items():
            if given.only in (None, case):
                measure(case, model, epochs // share, runs, Path(root))


def measure(case: str, model: dict[str, Any], epochs: int, runs: int, root: Path) -> None:
    """Measure one case and print its lines."""
    table = data()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(-1, runs):
        order = list(WAYS)[turn % len(WAYS) :] + list(WAYS)[: turn % len(WAYS)]  # nobody is always first
        for way in order:
            with WAYS[way]():
                spent = seconds(model, epochs, table, root / case / way)
            if turn >= 0:  # the first turn imports and warms up
                times[way].append(spent)
    for way in list(WAYS)[1:]:
        ratios = [on / off - 1 for on, off in zip(times["as it is"], times[way], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        miss = "  MISS" if way == "all three" and middle > LIMIT else ""
        print(f"{case:14}{way:12}{middle:>9.2%}{f'{low:.2%} to {high:.2%}':>20}{miss}", flush=True)
    whole, reads = statistics.median(times["as it is"]), FLOWS * epochs * TRAIN // BATCH
    number = torch.ones(())
    start = time.process_time()
    for _ in range(reads):
        number.item()
    print(
        f"{case:14}beside, {(time.process_time() - start) / whole:.2%} for reading {reads:,} losses, which is never off"
    )
    (folder,) = list((root / case / "as it is" / "recorded").iterdir())[-1:]
    start = time.process_time()
    save(folder / PAGE, page_of(folder))
    page, least = time.process_time() - start, estimate(folder) / SHARE
    print(f"{case:14}a run takes {whole:.2f} s; its page {page:.2f} s,", end=" ")
    print(f"written at its end from {least:.0f} s on{'' if page <= SHARE * least else '  MISS'}\n", flush=True)


def data() -> Table:
    """Random samples, the same at every call."""
    torch.manual_seed(0)
    rows = torch.arange(TRAIN + HELD_OUT)
    train, validation, test = rows.split([TRAIN, HELD_OUT // 2, HELD_OUT // 2])
    splits = {"train": train, "validation": validation, "test": test}
    return Table(torch.randn(len(rows), 1, 8, 8), torch.randint(0, 10, (len(rows),)), 10, splits)


def seconds(model: dict[str, Any], epochs: int, table: Table, out: Path) -> float:
    """CPU seconds of a whole run."""
    mesh = parse({
        "name": "recorded",
        "data": {"dataset": "python:given"},
        "agents": {"t": {"model": model, "update": "frozen"}, "s": {"model": model}},
        "flows": [
            {"from": "labels", "to": "s", "objective": "ce", "weight": 0.5},
            {"from": "t", "to": "s", "refresh": "step", "objective": {"kl": {"temperature": 4}}, "weight": 0.5},
        ],
        "train": {"batch_size": BATCH, "optimizer": {"adamw": {"lr": 1e-3}}, "threads": 1, "epochs": epochs},
    })  # fmt: skip
    start = time.process_time()
    Experiment(Request(mesh, "inline", out=out, table=table, report=False)).run()
    return time.process_time() - start


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s in all")
