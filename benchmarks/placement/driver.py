"""What the driver spends on cutting a window into calls."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.placement import meshes as flow
from kdmesh.graph.fragments import cut
from kdmesh.graph.plan import Plan
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry


def cuts(repeats: int) -> tuple[float, float]:
    """What cutting a window costs: an op of a step, an exchange of a step."""
    found = []
    for mesh, ops, edges in ((flow.taught(23, 16), 26, 23), (flow.peers(24, 16), 48, 24 * 23)):
        plan = make_plan(flow.placed(mesh, "spread"), registry())
        stage = plan.stages[0]
        phase = main(plan, stage.name)
        taken = statistics.median(
            clocked(lambda plan=plan, name=stage.name, phase=phase: cut(plan, name, phase, 0, 16))
            for _ in range(repeats)
        )
        found.append((ops, edges, taken / 16))
    (ops, edges, first), (more_ops, more_edges, second) = found
    edge = max(0.0, (second - first * more_ops / ops) / (more_edges - edges * more_ops / ops))
    return max(0.0, (first - edge * edges) / ops), edge


def main(plan: Plan, stage: str | None = None) -> Any:
    """The only phase of a plan's stage."""
    (phase,) = (plan.stage(stage) if stage else plan.stages[0]).phases.values()
    return phase


def clocked(work: Callable[[], Any]) -> float:
    """Wall seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
