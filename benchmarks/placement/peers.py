"""Two heavy peers in mutual learning, exchanging at every step: one inline thread, two inline threads, two Ray actors.

The same mesh three ways, interleaved, in one process that keeps its Ray; wall seconds of the one stage, medians of
seven. The spread run must be at least 1.6 times one inline thread; beside it stands its ratio to all threads. Run:
``python -m benchmarks.placement peers [--quick]``. It needs two idle cores to say anything.
"""

from __future__ import annotations

import argparse
import statistics

import torch

from kdmesh.backends import Session
from kdmesh.contracts.events import Event, StageFinished
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table

FLOOR, RUNS, SAMPLES, BATCH = 1.6, 7, 1024, 64
MODEL = {"cnn": {"width": 32, "depth": 3}}
THREADS = 2


def mesh(threads: int, placement: str) -> dict:
    """Two peers that teach each other at every step."""
    flows = [{"from": "labels", "to": name, "objective": "ce"} for name in ("a", "b")]
    flows += [{"from": "b", "to": "a", "objective": "kl"}, {"from": "a", "to": "b", "objective": "kl"}]
    return {
        "data": {"dataset": "python:given", "validation": 0, "test": 0},
        "agents": {name: {"model": MODEL} for name in ("a", "b")},
        "flows": flows,
        "placement": placement,
        "train": {"epochs": 1, "batch_size": BATCH, "threads": threads},
    }


def seconds(session: Session, threads: int, placement: str, table: Table) -> float:
    """Wall seconds of the stage."""
    found: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StageFinished):
            found.append(event.seconds)

    request = Request(parse(mesh(threads, placement)), table=table, listeners=(listen,))
    run_once(request, session=session)
    return found[0]


def main() -> None:
    """Print the three medians and the two ratios."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="one run each, of four steps")
    quick = options.parse_args().quick
    runs, samples = (1, 4 * BATCH) if quick else (RUNS, SAMPLES)
    torch.manual_seed(0)
    given = {"train": torch.arange(samples)}
    table = Table(torch.randn(samples, 1, 28, 28), torch.randint(0, 10, (samples,)), 10, given)
    with Session("inline") as inline, Session("ray") as ray:
        ways = {
            "inline, 1 thread": lambda: seconds(inline, 1, "together", table),
            f"inline, {THREADS} threads": lambda: seconds(inline, THREADS, "together", table),
            "two Ray actors": lambda: seconds(ray, 1, "spread", table),
        }
        for way in ways.values():
            way()
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, way in ways.items():
                times[name].append(way())
    steps = samples // BATCH
    one, every, spread = (times[name] for name in ways)
    for name, values in times.items():
        print(f"{name:20} {statistics.median(values) / steps * 1000:7.1f} ms/step")
    to_one = statistics.median(a / b for a, b in zip(one, spread, strict=True))
    to_all = statistics.median(a / b for a, b in zip(every, spread, strict=True))
    print(f"two actors against one inline thread: {to_one:.2f} (floor {FLOOR}){'' if to_one >= FLOOR else '  MISS'}")
    print(f"two actors against all inline threads: {to_all:.2f}")
