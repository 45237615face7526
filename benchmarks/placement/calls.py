"""What a step and a crossing cost beside the computing: small peers apart, and fragments that do nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.placement import meshes as flow
from kdmesh.backends import Session
from kdmesh.engine.check import examine
from kdmesh.graph.fragment import Fragment
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.hosts.state import HostConfig
from kdmesh.plugins import registry

CALLS = 400


def costs(inline: Session, ray: Session, runs: int, scale: float) -> Iterator[tuple[str, float]]:
    """Names and milliseconds."""
    steps = int(512 * scale)
    data = flow.table("mlp", steps * 64)
    small = {"mlp": {"hidden": [16]}}
    each_other, one_way = flow.peers(2, 64, small), flow.pair(64, small)
    ways = {
        f"{name}, {where}": lambda session=session, mesh=mesh, placement=placement: flow.seconds(
            session, flow.placed(mesh, placement), data
        )
        for name, mesh in (("each other", each_other), ("one way", one_way))
        for where, session, placement in (("inline", inline, "together"), ("apart", ray, "spread"))
    }
    found = flow.interleaved(ways, runs)
    step = {name: statistics.median(times) / steps * 1000 for name, times in found.items()}
    yield "a step of two small MLPs that teach each other, inline", step["each other, inline"]
    yield "the same apart: two fragments and two crossings a step, side by side", step["each other, apart"]
    half = step["each other, inline"] / 2
    yield "a step costs so much more apart, over the half of it that a host computes", step["each other, apart"] - half
    yield "a step of a small teacher and a student, inline", step["one way, inline"]
    yield "the same apart: two calls and one crossing in 16 steps", step["one way, apart"]
    yield from empty(ray, one_way, data, int(CALLS * scale), runs)


def empty(ray: Session, mesh: dict, data: Any, calls: int, runs: int) -> Iterator[tuple[str, float]]:
    """Calls of `run` with a fragment that has no ops, on two hosts."""
    plan = make_plan(flow.placed(mesh, "spread"), registry())
    found = examine(plan, None, data)
    backend, (stage,) = ray.backend, plan.stages
    backend.open(HostConfig(plan, {}, found.shapes, False), Source(data))
    hosts, ends = list(plan.hosts), {"t": 1, "s": 1}
    for host in hosts:
        backend.get(
            [backend.call(host, "start", stage.name, {}), backend.call(host, "begin", stage.name, "main", ends, 0, {})]
        )
    submit, alone, chain = [], [], []
    for _ in range(runs + 1):
        start = time.perf_counter()
        reports = [idle(backend, hosts[number % 2], stage.name)[1] for number in range(calls)]
        submit.append((time.perf_counter() - start) / calls)
        backend.get(reports)
        alone.append((time.perf_counter() - start) / calls)
        start, bundle = time.perf_counter(), None
        for number in range(calls):
            bundle, report = idle(backend, hosts[number % 2], stage.name, *([] if bundle is None else [bundle]))
        backend.get([report])
        chain.append((time.perf_counter() - start) / calls)
    yield "an empty fragment, submitted by the driver", statistics.median(submit[1:]) * 1000
    yield "an empty fragment that waits for nobody, done, both hosts at work", statistics.median(alone[1:]) * 1000
    yield "an empty fragment that waits for one on the other host: a crossing", statistics.median(chain[1:]) * 1000


def idle(backend: Any, host: str, stage: str, *needs: Any) -> Any:
    """Submit a fragment without ops."""
    return backend.call(host, "run", Fragment(host, stage, 0), *needs, results=2)
