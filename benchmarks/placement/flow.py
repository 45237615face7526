"""What hosts gain and what they cost: work that flows one way or not at all, `auto`, calls, and bytes that cross.

Each mesh runs inline on one thread, inline on all, on two Ray hosts of one thread each, and as `placement: auto` with
`threads: auto` settles it for a long run: interleaved, in one process that keeps its Ray, wall seconds from the first
stage's start to the last one's end, ratios the medians of paired ratios of thirty runs. Case c varies more: it runs 150
times, five times on two hosts. The 95% interval of a median is that of its rank. Runs on Ray write their checkpoints in
that time, inline runs have none. `auto` is compared with the faster inline way and may be 3% behind it, 5% for the
small peers, which it must co-host; behind all threads it may never be more than 3%. Bytes are counted as the run passes
them from host to host: those of the arrays, and as pickled. It needs two idle cores to say anything.
Run: ``python -m benchmarks.placement flow [--quick] [--runs N] [CASE ...]``.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.placement import meshes as flow
from benchmarks.placement.calls import costs
from benchmarks.placement.crossings import Counting, rows
from kdmesh.backends import Session

EVERY = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
HEADS = ("inline 1", f"inline {EVERY}", "2 hosts", "auto", "to 1", "floor", f"to {EVERY}", "auto to", "floor")
ALL = 0.97  # of inline on all threads: what `auto` must reach everywhere


@dataclass(frozen=True)
class Case:
    """A mesh, where its agents go on two hosts, its samples, and what is asked of it."""

    name: str
    mesh: dict
    hosts: dict[str, list[str]]
    samples: int
    spread: float | None  # at least so much faster on two hosts than inline on one thread
    auto: float = ALL
    often: int = 6  # times as many runs, but for hosts apart of which nothing is asked

    @property
    def steps(self) -> int:
        """Steps of the mesh."""
        return self.samples // self.mesh["train"]["batch_size"]


def cases(scale: float) -> list[Case]:
    """The cases, with so many steps."""
    two = {"one": ["t"], "two": ["s"]}
    frozen = {"model": flow.WIDE, "update": "frozen"}
    count = int(160 * scale), int(320 * scale), int(1024 * scale)
    halves = {"one": ["t0", "t1"], "two": ["t2", "t3"]}
    apart = {"one": ["p0"], "two": ["p1"]}
    return [
        Case("a: 4 teachers, no path", flow.alone(4, 16), halves, 16 * count[0], 1.7),
        Case("b: training teacher", flow.pair(16), two, 16 * count[1], 1.6),
        Case("b: frozen teacher", flow.pair(16, teacher=frozen), two, 16 * count[1], 1.6),
        Case("c: 2 small peers", flow.peers(2, 64), apart, 64 * count[2], None, 0.95, 30),
    ]


def row(case: Case, inline: Session, ray: Session, runs: int) -> Iterator[str]:
    """Measure one case and give its line, then what `auto` chose."""
    data = flow.table("mlp" if "peers" in case.name else "cnn", case.samples)
    chosen = flow.auto(case.mesh, data)
    ways: dict[str, Callable[[], float]] = {
        "one": lambda: flow.seconds(inline, flow.placed(case.mesh, "together"), data),
        "every": lambda: flow.seconds(inline, flow.placed(case.mesh, "together", EVERY), data),
        "spread": lambda: flow.seconds(ray, flow.placed(case.mesh, case.hosts), data),
        "auto": lambda: flow.seconds(ray, chosen, data),
    }
    times = flow.interleaved(ways, runs)
    again = {name: way for name, way in ways.items() if name != "spread" or case.spread is not None}
    for name, values in flow.interleaved(again, runs * (case.often - 1), warm=False).items():
        times[name] += values
    apart = len(times["spread"])
    to_one, to_all = (flow.ratio(times[way][:apart], times["spread"]) for way in ("one", "every"))
    better = min(times["one"], times["every"], key=statistics.median)
    auto = flow.ratio(better, times["auto"])
    cells = [f"{statistics.median(values) / case.steps * 1000:.2f}" for values in times.values()]
    cells += [f"{to_one:.2f}", "-" if case.spread is None else f"{case.spread:.2f}", f"{to_all:.2f}"]
    cells += [f"{auto:.2f}", f"{case.auto:.2f}"]
    auto_to_all = flow.ratio(times["every"], times["auto"])
    met = to_one >= (case.spread or 0) and auto >= case.auto and auto_to_all >= ALL
    yield f"{case.name:24}" + "".join(f"{cell:>10}" for cell in cells) + ("" if met else "  MISS")
    placement = chosen.placement if isinstance(chosen.placement, dict) else {}
    where = "; ".join(" ".join(held) for held in placement.values())
    low, high = interval([a / b for a, b in zip(better, times["auto"], strict=True)])
    yield (
        f"  auto: {where}, threads: {chosen.train.threads}; 95% of auto to the faster: {low:.2f} to {high:.2f}; "
        f"auto to {EVERY}: {auto_to_all:.2f}, floor {ALL:.2f}"
    )


def interval(values: list[float]) -> tuple[float, float]:
    """In which the median lies with 95% probability, by the binomial distribution of its rank."""
    ordered, count = sorted(values), len(values)
    reach = 0.98 * math.sqrt(count)
    return ordered[max(0, math.floor(count / 2 - reach))], ordered[min(count - 1, math.ceil(count / 2 + reach) - 1)]


def main() -> None:
    """Print every table."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    options.add_argument("--runs", type=int, help="a sixth of the runs of a case, a thirtieth of those of c (5)")
    options.add_argument("cases", nargs="*", help="only cases whose names begin so, without d and e")
    asked = options.parse_args()
    quick, start = asked.quick, time.perf_counter()
    runs = asked.runs or (1 if quick else 5)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {EVERY} cores, interleaved runs; ms a step of the mesh, and ratios\n")
    print(f"{'case':24}" + "".join(f"{head:>10}" for head in HEADS))
    with Session("inline") as inline, Session("ray") as ray:
        flow.open_ray(ray)
        for case in cases(0.25 if quick else 1.0):
            for line in row(case, inline, ray, runs) if case.name.startswith(tuple(asked.cases or [""])) else ():
                print(line, flush=True)
        if asked.cases:
            return
        print("\nd: what a step and a crossing cost, ms")
        for name, value in costs(inline, ray, runs, 0.25 if quick else 1.0):
            print(f"  {name:76}{value:8.3f}", flush=True)
    print("\ne: bytes that cross for each sample that the student trains on, as arrays (as pickled)")
    for line in rows(lambda spec, data: counted(spec, data)):
        print(line, flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s in all")


def counted(spec: Any, data: Any) -> Counting:
    """Run inline, on a backend that counts what crosses."""
    session = Session("inline")
    session._backend = backend = Counting()
    flow.seconds(session, spec, data)
    return backend
