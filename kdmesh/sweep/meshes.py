"""The mesh of a point: the file with the point's values, and its controls."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.checks.budget import planned_updates
from kdmesh.engine import controls
from kdmesh.engine.check import examine
from kdmesh.engine.looked_up import settled
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.graph.roles import teachers_of
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.plugins import registry
from kdmesh.spec.code import refuse_code
from kdmesh.spec.override import apply
from kdmesh.spec.read import anchor, parse
from kdmesh.sweep.budget import shortened
from kdmesh.sweep.design import words

if TYPE_CHECKING:
    from kdmesh.checks.checked import Checked
    from kdmesh.contracts.sampler import Point
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec


class Meshes:
    """Makes meshes of points of one file."""

    def __init__(
        self, given: dict[str, Any], folder: str, file: str = "", code: bool = True, store: str | None = None
    ) -> None:
        """``given``: the file's content; ``folder``: where its paths start from; ``file``: its name in errors.

        ``code``: they may name code; else a point that does is refused before anything is imported. ``store``: as
        trials have it.
        """
        self.given, self.folder, self.file, self.code = given, Path(folder), file, code
        self.store = store
        self._known: dict[str, Checked] = {}

    def plan(self, point: Point, seed: int | None = None, part: int = 1) -> Plan:
        """The plan of a point, of its long form, with a share of the budget. MeshError that names the point."""
        try:
            changes = [f"{path}={json.dumps(value)}" for path, value in point.items()]
            spec = anchor(parse(apply(self.given, changes), file=self.file), self.folder)
            if not self.code:
                refuse_code(spec)
            plan = make_plan(spec, registry())
            refuse_unrun(plan, registry())
        except MeshError as error:
            raise named(error, point) from None
        long = plan.resolved()
        if seed is not None:
            long = long.model_copy(update={"seed": seed})
        return make_plan(shortened(long, part), registry())

    def check(self, plan: Plan) -> Checked:
        """What the check finds of a mesh; its data are read once for all that have the same."""
        known = replace(plan, spec=settled(plan.spec, self.store))
        found = self._known[self._data(plan)] = examine(known)
        return found

    def updates(self, plan: Plan, agent: str) -> int:
        """Updates that an agent's weights get in a mesh."""
        found = self._known.get(self._data(plan)) or self.check(plan)
        totals: dict[str, int] = {}
        for stage in plan.stages:
            totals |= planned_updates(plan, found, stage)
        return totals.get(plan.owner[agent], 0)

    def alone(self, plan: Plan, agent: str) -> MeshSpec:
        """The control that learns from labels only, with the same updates."""
        updates = self.updates(plan, agent)
        return controls.unseeded(plan, controls.alone(plan, agent, updates), self._known[self._data(plan)].whole)

    @staticmethod
    def _data(plan: Plan) -> str:
        data, text = plan.spec.data, plan.spec.text
        return f"{data and data.model_dump_json()}{text and text.model_dump_json()}"


def taught_by_several(plan: Plan, agent: str) -> bool:
    """Whether there is a control with the best of several teachers."""
    return len(teachers_of(plan, agent)) > 1


def named(error: MeshError, point: Point) -> MeshError:
    """The error with the point that it is of."""
    error.where = error.where.replace("--set ", "--over ")
    error.what = f"{error.what} (at {words(point)})" if point else error.what
    return error
