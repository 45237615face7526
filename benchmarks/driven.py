"""A mesh whose host is driven as a run drives it, some steps at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.check import examine
from kdmesh.graph.fragments import whole
from kdmesh.graph.planner import make_plan
from kdmesh.graph.program import MAIN
from kdmesh.hosts.source import Source
from kdmesh.hosts.state import HostConfig
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

if TYPE_CHECKING:
    from kdmesh.hosts.host import Host
    from kdmesh.streams.table import Table


class Driven:
    """``learners`` train for so many ``updates``; ``table``: the data, where the mesh names none."""

    def __init__(self, mesh: dict[str, Any], learners: list[str], updates: int, table: Table | None = None) -> None:
        plan = make_plan(parse(mesh), registry())
        checked = examine(plan, {}, table)
        backend = InlineBackend()
        backend.open(HostConfig(plan, {}, checked.shapes, False, checked.reading.files()), Source(checked.table))
        self.host: Host = next(iter(backend.hosts.values()))
        (stage,) = (stage for stage in plan.stages if stage.weights)
        self.stage, self.learners = stage.name, learners
        self.host.start(self.stage, dict.fromkeys(learners, updates))
        self.host.begin(self.stage, MAIN, dict.fromkeys(learners, updates), 0, {})

    def __call__(self, first: int, last: int) -> dict[str, float]:
        """Some steps; returns each learner's mean loss."""
        (fragment,) = whole(self.host.name, self.stage, first, last)
        losses: dict[str, float] = self.host.run(fragment)[1].losses
        return losses
