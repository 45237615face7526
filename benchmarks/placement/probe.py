"""Measure what the simulation needs: calls, results that cross, waiting and cutting on this machine's Ray.

Calls are costed by the CPU seconds of the threads and processes concerned, so that a busy machine disturbs little.
Every probe is short, and made many times in turn with the runs that are predicted, so that both see the same machine.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.placement import meshes as flow
from benchmarks.placement.driver import clocked, cuts, main
from benchmarks.placement.sim import BUSY
from benchmarks.placement.work import BATCH, HOSTS, calls, together
from kdmesh.backends import Session, envelope
from kdmesh.graph.fragments import cut
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.packing import pack, unpack
from kdmesh.plugins import registry

CALLS, ARGS, BIG = 400, 32, 4 * 2**20
SMALL = BATCH * flow.CLASSES * 4  # bytes of a batch's logits
CHECKPOINT = 4 * 2**20  # bytes
FEW, MANY = 32, 256  # results that are waited for


class Probe:
    """An actor that does with a call what a host does, and computes for as long as it is told to."""

    def __init__(self, paths: list[str]) -> None:
        sys.path[:] = dict.fromkeys([*paths, *sys.path])
        torch.set_num_threads(1)
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 160), torch.nn.ReLU(), torch.nn.Linear(160, flow.CLASSES))
        self.x = torch.randn(16, 64)

    def busy(self, seconds: float) -> None:
        """Small steps of a small net, for so many seconds of this thread on a core."""
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            self.net(self.x).logsumexp(1).mean().backward()

    def run(self, sent: bytes, *arrived: Any) -> tuple[Any, Any]:
        """Compute for so many seconds, and give a value of so many bytes; what is large is unpacked.

        What is small is unpacked by a fragment itself, whose time is measured with it.
        """
        _, _, (_, size, seconds, *imports), _ = envelope.opened(sent, arrived)
        for bundle in imports if size > envelope.SMALL else ():
            unpack(bundle, torch.device("cpu"))
        self.busy(seconds)
        return envelope.result({0: pack((torch.zeros(size // 4), {}))}), envelope.result({"loss": 0.0})

    def work(self, kind: str, family: str, hosts: int) -> dict[str, list[float]]:
        """What the calls of a mesh compute: see `work.py`."""
        torch.set_num_threads(1)
        return calls(kind, family, hosts)

    def cpu(self) -> float:
        """CPU seconds of this process so far."""
        return time.process_time()


class Actors:
    """Four such actors, of which calls in turn go to two, and how much CPU time was spent where since the last look."""

    def __init__(self) -> None:
        import ray

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self.get, self.kill, self.handle, make = ray.get, ray.kill, ray.ObjectRef, ray.remote(Probe)
        self.actors = [make.options(num_cpus=1).remote(sys.path) for _ in range(4)]
        plan = make_plan(flow.placed(flow.pair(16, flow.MLP), "spread"), registry())
        self.fragment = cut(plan, plan.stages[0].name, main(plan), 0, 16)[0]

    def call(self, number: int, size: int, *needs: Any, seconds: float = 0.0) -> list[Any]:
        """Submit a call to one of them, in turn."""
        sent, handles = envelope.call((1, 1), "run", [self.fragment, size, seconds, *needs], 2, self.handle)
        return self.actors[number].run.options(num_returns=2).remote(sent, *handles)

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

    def trips(self, seconds: float, hosts: int) -> float:
        """Wall seconds of a call to each of the hosts that the driver waits for, and that compute for so long."""

        def trip() -> None:
            self.get([self.call(number, 4, seconds=seconds)[1] for number in range(hosts)])

        return statistics.mean(clocked(trip) for _ in range(CALLS // 10 if seconds < 0.01 else CALLS // 40))

    def ways(self, session: Session) -> dict[Any, Callable[[], Any]]:
        """Every probe of calls by name, each of which gives seconds, or several."""
        backend, few = session.backend, CALLS // 8
        self.plain()
        values = [self.call(number % 2, SMALL)[0] for number in range(ARGS)]
        ready = [self.call(number % 2, 4)[1] for number in range(MANY)]
        self.get([*values, *ready])
        data = bytes(CHECKPOINT)

        def many() -> None:
            self.get([self.call(number % 2, 4, *values)[1] for number in range(few)])

        found: dict[Any, Callable[[], Any]] = {
            "plain": lambda: [part / CALLS for part in self.spent(self.plain)],
            "args": lambda: [part / few for part in self.spent(many)],
            "big": lambda: self.exchange(BIG, 10),
            "cut": lambda: cuts(1),
            "sum": lambda: clocked(lambda: hashlib.sha256(data).hexdigest()) / CHECKPOINT,
        }
        for count in (FEW, MANY):
            found["wait", count] = lambda count=count: clocked(lambda: backend.get(ready[:count]))
        for hosts in HOSTS:
            for busy in BUSY:
                levels = CALLS // 4 if busy < 0.01 else CALLS // 16
                found["level", hosts, busy] = lambda levels=levels, busy=busy, hosts=hosts: self.exchange(
                    SMALL, levels, busy, hosts
                )
                found["trip", hosts, busy] = lambda busy=busy, hosts=hosts: self.trips(busy, hosts)
        return {
            name: lambda way=way: whole(statistics.median, [way() for _ in range(3)]) for name, way in found.items()
        }

    def work(self, *case: Any) -> dict[str, list[float]]:
        """What the calls of a mesh compute, with two actors at work."""
        return together(*self.get([actor.work.remote(*case) for actor in self.actors[:2]]))

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            self.kill(actor)


def whole(of: Callable[[list[float]], float], rows: list[Any]) -> Any:
    """The median or mean of rows: of numbers, of every column, or of every value by name."""
    if isinstance(rows[0], float):
        return of(rows)
    if isinstance(rows[0], dict):
        return {name: whole(of, [row[name] for row in rows]) for name in rows[0]}
    return [whole(of, list(column)) for column in zip(*rows, strict=True)]
