"""Measure what the simulation needs: calls, results that cross, waiting and cutting on this machine's Ray.

Calls are costed by the CPU seconds of the threads and processes concerned, so that a busy machine disturbs little.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import flow_mesh as flow
import torch
from flow_driver import clocked, cuts, main
from flow_sim import Call, Costs, Group, Mesh

from kdmesh.agents.crossing import Bundle, pack, unpack
from kdmesh.backends import Session
from kdmesh.engine.stretch import cut
from kdmesh.graph.plan import make_plan
from kdmesh.plugins import registry

CALLS, ARGS, BIG = 400, 32, 4 * 2**20
BUSY = 0.001  # CPU seconds of a call of which another waits: a thread that wakes may wait for a core
CHECKPOINT = 4 * 2**20  # bytes


class Probe:
    """An actor that does with a call what a host does, and computes nothing."""

    def __init__(self, paths: list[str]) -> None:
        sys.path[:] = dict.fromkeys([*paths, *sys.path])
        torch.set_num_threads(1)

    def run(self, segment: Any, size: int, seconds: float, *imports: Bundle) -> tuple[Bundle, dict[str, float]]:
        """Unpack what comes, keep a core busy for so many CPU seconds, and give a value of so many bytes."""
        for bundle in imports:
            unpack(bundle, torch.device("cpu"))
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return {0: pack((torch.zeros(size // 4), {}))}, {"loss": 0.0}

    def cpu(self) -> float:
        """CPU seconds of this process so far."""
        return time.process_time()


class Actors:
    """Four such actors, of which calls in turn go to two, and how much CPU time was spent where since the last look."""

    def __init__(self) -> None:
        import ray

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self.get, self.kill, make = ray.get, ray.kill, ray.remote(Probe)
        self.actors = [make.options(num_cpus=1).remote(sys.path) for _ in range(4)]
        plan = make_plan(flow.placed(flow.pair(16, flow.MLP), "spread"), registry())
        self.segment = cut(plan, plan.stages[0].name, main(plan), 0, 16)[0]

    def call(self, number: int, size: int, *needs: Any, seconds: float = 0.0) -> list[Any]:
        """Submit a call to one of them, in turn."""
        return self.actors[number].run.options(num_returns=2).remote(self.segment, size, seconds, *needs)

    def spent(self, work: Any) -> list[float]:
        """CPU seconds of the driver's thread, its other threads, and both actors; wall seconds."""
        actors = sum(self.get([actor.cpu.remote() for actor in self.actors]))
        wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
        work()
        wall, process = time.perf_counter() - wall, time.process_time() - process
        thread = time.thread_time() - thread
        actors = sum(self.get([actor.cpu.remote() for actor in self.actors])) - actors
        return [thread, process - thread, actors, wall]

    def plain(self) -> None:
        """Calls that need nothing."""
        self.get([self.call(number % 2, 4)[1] for number in range(CALLS)])

    def exchange(self, size: int, levels: int, seconds: float = 0.0, hosts: int = 2) -> float:
        """Calls of all hosts at a time, of which each needs what the others gave before; wall seconds of a level."""
        start, given, reports = time.perf_counter(), [], []
        for _ in range(levels):
            needs = [given[:host] + given[host + 1 :] for host in range(hosts)]
            made = [self.call(host, size, *needs[host], seconds=seconds) for host in range(hosts)]
            given, reports = [value for value, _ in made], [report for _, report in made]
        self.get(reports)
        return (time.perf_counter() - start) / levels


def costs(session: Session, repeats: int, cores: int) -> Costs:
    """Measure calls, crossings, waiting, cutting and summing; medians."""
    pair = Actors()
    pair.plain()
    size = 16 * flow.CLASSES * 4
    values = [pair.call(number % 2, size)[0] for number in range(ARGS)]
    pair.get(values)
    few = CALLS // 8

    def many() -> None:
        pair.get([pair.call(number % 2, 4, *values)[1] for number in range(few)])

    plain = middle([[part / CALLS for part in pair.spent(pair.plain)] for _ in range(repeats)])
    with_args = middle([[part / few for part in pair.spent(many)] for _ in range(repeats)])
    arg = [max(0.0, (b - a) / ARGS) for a, b in zip(plain, with_args, strict=True)]
    level = statistics.median(pair.exchange(size, CALLS // 4) for _ in range(repeats))
    busy = {
        hosts: statistics.median(pair.exchange(size, CALLS // 4, BUSY, hosts) for _ in range(repeats))
        for hosts in (2, 3, 4)
    }
    big = statistics.median(pair.exchange(BIG, 10) for _ in range(repeats))
    wait, wait_pair = waits(session, pair, repeats)
    cut_op, cut_edge = cuts(repeats)
    for actor in pair.actors:
        pair.kill(actor)
    data = bytes(CHECKPOINT)
    summed = statistics.median(clocked(lambda: hashlib.sha256(data).hexdigest()) for _ in range(repeats))
    known = Costs(
        submit=plain[0], submit_arg=arg[0], io=plain[1], io_arg=arg[1], call=plain[2], arg=arg[2],
        wait=wait, wait_pair=wait_pair, cut=cut_op, cut_edge=cut_edge,
        sum=summed / CHECKPOINT, save=summed / CHECKPOINT, hop=0.0, wake=(0.0, 0.0, 0.0), byte=0.0,
    )  # fmt: skip
    known = replace(known, hop=fitted(lambda hop: simulated(replace(known, hop=hop), size, cores), level))
    byte = fitted(lambda byte: simulated(replace(known, byte=byte), BIG, cores), big / BIG, big)
    known = replace(known, byte=byte)
    wake = [
        fitted(lambda wake, n=hosts: simulated(replace(known, wake=(wake,) * 3), size, cores, BUSY, n), seconds)
        for hosts, seconds in busy.items()
    ]
    return replace(known, wake=tuple(wake))


def fitted(level: Callable[[float], float], seconds: float, target: float | None = None) -> float:
    """The cost, at most ``seconds``, with which a simulated level takes as long as the real one (``target``)."""
    low, high = 0.0, seconds
    for _ in range(20):
        middle = (low + high) / 2
        longer = level(middle) > (seconds if target is None else target)
        low, high = (low, middle) if longer else (middle, high)
    return (low + high) / 2


def simulated(known: Costs, size: int, cores: int, busy: float = 0.0, hosts: int = 2, levels: int = 30) -> float:
    """Seconds of a level of the exchange."""

    def driver() -> Iterator[Call | list[Call]]:
        before = None
        for _ in range(levels):
            given, args = Group(), 0 if before is None else hosts - 1
            calls = [Call(host, busy, before, args, size, done=given) for host in range(hosts)]
            yield from calls
            before = given
        yield calls

    mesh = Mesh(known, hosts, cores)
    mesh.run(driver())
    return mesh.cores.now / levels


def waits(session: Session, pair: Actors, repeats: int) -> tuple[float, float]:
    """What the driver spends on n results that are there: as its schedule does, a + b n each."""
    backend, each = session.backend, {}
    for count in (32, 256):
        ready = [pair.call(number % 2, 4)[1] for number in range(count)]
        pair.get(ready)

        def schedule(ready: list[Any] = ready) -> None:
            left = list(ready)
            while left:
                left.remove(left[backend.wait_any(left)])
            backend.get(ready)

        each[count] = statistics.median(clocked(schedule) for _ in range(repeats)) / count
    slope = (each[256] - each[32]) / (256 - 32)
    return max(0.0, each[32] - 32 * slope), slope


def middle(rows: list[list[float]]) -> list[float]:
    """The median of every column."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]
