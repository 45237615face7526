"""Measure what the simulation needs: calls, results that cross, waiting, cutting and checkpoints on this machine's Ray.

Calls are costed by the CPU seconds of the threads and processes concerned, so that a busy machine disturbs little.
Every probe is short, and made many times in turn with the runs that are predicted, so that both see the same machine.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flow_mesh as flow
import torch
from flow_driver import clocked, cuts, main
from flow_sim import BUSY

from kdmesh.agents.crossing import Bundle, pack, unpack
from kdmesh.backends import Session
from kdmesh.engine.checkpoint import Checkpoints
from kdmesh.engine.stretch import cut
from kdmesh.graph.plan import make_plan
from kdmesh.plugins import registry

CALLS, ARGS, BIG = 400, 32, 4 * 2**20
SMALL = 16 * flow.CLASSES * 4  # bytes of a batch's logits
CHECKPOINT = 4 * 2**20  # bytes
FEW, MANY = 32, 256  # results that are waited for; hosts of which a checkpoint has parts are an eighth of that
HOSTS = 2, 3, 4


class Probe:
    """An actor that does with a call what a host does, and keeps a core busy as one does: with steps of a small net.

    What these take more where cores and caches are shared is a part of what sharing costs.
    """

    def __init__(self, paths: list[str]) -> None:
        sys.path[:] = dict.fromkeys([*paths, *sys.path])
        torch.set_num_threads(1)
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 160), torch.nn.ReLU(), torch.nn.Linear(160, flow.CLASSES))
        self.x = torch.randn(16, 64)
        self.unit = 0.0  # seconds of a small step, alone

    def calibrate(self) -> None:
        """Time a small step; nobody else may be at work."""
        taken = []
        for _ in range(20):
            start = time.thread_time()
            self.busy(50)
            taken.append((time.thread_time() - start) / 50)
        self.unit = statistics.median(taken[5:])

    def busy(self, steps: int) -> None:
        """So many small steps."""
        for _ in range(steps):
            self.net(self.x).logsumexp(1).mean().backward()

    def run(self, segment: Any, size: int, seconds: float, *imports: Bundle) -> tuple[Bundle, dict[str, float]]:
        """Unpack what comes, compute what takes so many seconds alone, and give a value of so many bytes."""
        for bundle in imports:
            unpack(bundle, torch.device("cpu"))
        self.busy(round(seconds / self.unit))
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
        for actor in self.actors:
            self.get(actor.calibrate.remote())
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

    def ways(self, session: Session) -> dict[Any, Callable[[], Any]]:
        """Every probe by name, each of which gives seconds, or several."""
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
            found["keep", count // 8] = lambda parts=count // 8: kept(parts)
        for hosts in HOSTS:
            for busy in BUSY:
                levels = CALLS // 4 if busy < 0.01 else CALLS // 16
                found["level", hosts, busy] = lambda levels=levels, busy=busy, hosts=hosts: self.exchange(
                    SMALL, levels, busy, hosts
                )
        return {name: lambda way=way: middle([way() for _ in range(3)]) for name, way in found.items()}

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            self.kill(actor)


def kept(parts: int) -> float:
    """Seconds in which the driver completes a checkpoint to which so many hosts gave nothing but a word."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        at = checkpoints.next("stage")
        at.mkdir(parents=True)
        names = [f"host{number}.{end}" for number in range(parts) for end in ("safetensors", "json")]
        for name in names:
            (at / name).write_text("{}", encoding="utf-8")
        return clocked(lambda: checkpoints.complete("stage", at, names, {}))


def middle(rows: list[Any]) -> Any:
    """The median, or that of every column."""
    if isinstance(rows[0], float):
        return statistics.median(rows)
    return [statistics.median(column) for column in zip(*rows, strict=True)]
