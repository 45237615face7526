"""What the sections of a page share: a run's folder, read once, with its figures over seeds and its plan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import COSTS, LATENCY, RESOLVED
from kdmesh.errors import MeshError
from kdmesh.files import read_json
from kdmesh.report.page.blocks import number
from kdmesh.report.paired import over_seeds
from kdmesh.report.run_folder import MISREAD, RunFolder
from kdmesh.tasks import Figure, compared

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan

ROLES = (
    "consensus",
    "student",
    "peer",
    "assistant",
    "agent",
    "average",
    "writer",
    "teacher",
)  # the order in which they stand
Row = dict[str, Any]


@dataclass
class Known:
    """A run as the sections read it.

    Attributes:
        run: its folder.
        summaries: of the seeds that were measured, whatever is not finite in them replaced by None.
        over: what `kdmesh.report.paired.over_seeds` says of them; empty where nothing was measured.
        odd: what is wrong with the folder's figures, in sentences.
    """

    run: RunFolder
    summaries: list[Row] = field(default_factory=list)
    over: Row = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, run: RunFolder) -> Known:
        """Read what a folder knows."""
        known = cls(run, [sound(summary) for summary in run.summaries])
        if not known.summaries:
            return known
        try:
            known.over = over_seeds(known.summaries)
        except (*MISREAD, MeshError) as error:
            known.odd.append(f"The figures of its summaries cannot be compared: {error}.")
        return known

    @cached_property
    def by(self) -> Figure:
        """The metric by which the run compares."""
        mesh = self.run.manifest["mesh"]
        said = self.summaries[0] if self.summaries else {"task": mesh.get("task"), "metric": mesh.get("primary")}
        try:
            return compared({key: said.get(key) for key in ("task", "metric") if isinstance(said.get(key), str)})
        except MeshError:  # of a plugin that is not installed here
            return Figure("figure")

    @cached_property
    def plan(self) -> Plan | MeshError:
        """The plan of the mesh as it was run; why there is none where its plugins are not here."""
        from kdmesh.graph.planner import make_plan
        from kdmesh.plugins import registry
        from kdmesh.spec.read import read_mesh

        found = [one.path / RESOLVED for one in (self.run, *self.run.runs.values()) if (one.path / RESOLVED).is_file()]
        if not found:
            return MeshError(f"the folder has no {RESOLVED} yet")
        try:
            return make_plan(read_mesh(found[0]), registry())
        except MeshError as error:
            return error
        except OSError as error:
            return MeshError(str(error))

    @cached_property
    def costs(self) -> list[Row]:
        """What the seeds that were measured cost: their ``costs.json``."""
        measured = [part for part in self.run.runs.values() if part.summary is not None]
        return [sound(found) for part in measured if (found := read_json(part.path / COSTS)) is not None]

    @cached_property
    def latency(self) -> Row:
        """What ``latency.json`` says: how long agents take to answer, where that was measured; else empty."""
        return row(sound(read_json(self.run.path / LATENCY)))

    @property
    def nodes(self) -> dict[str, Row]:
        """Consensus nodes and agents by name, of the first seed that was measured, in the order in which they stand."""
        if not self.summaries:
            return {}
        first = self.summaries[0]
        found = {name: {**row(node), "role": "consensus"} for name, node in row(first.get("consensus")).items()}
        found |= {name: row(node) for name, node in row(first.get("agents")).items()}
        known = sorted(found.items(), key=lambda one: _place(str(one[1].get("role"))))
        return dict(known)

    @property
    def students(self) -> list[str]:
        """Who is taught: agents that neither teach nor write alone."""
        return [name for name, node in self.nodes.items() if node.get("role") not in ("consensus", "teacher", "writer")]

    def mean(self, name: str, *path: str) -> float | None:
        """The mean over seeds of a number in the record of an agent or consensus.

        ``("batches", "64", "p50_ms")`` and the like: of the one seed whose latency was measured.
        """
        values = [number(at(row(summary.get(kind)).get(name), path)) for kind, summary in self._both()]
        values += [number(at(row(costs.get("agents")).get(name), path)) for costs in self.costs]
        values.append(number(at(row(row(self.latency.get("agents")).get(name)), path)))
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    def _both(self) -> Iterator[tuple[str, Row]]:
        return ((kind, summary) for summary in self.summaries for kind in ("agents", "consensus"))

    def figure(self, name: str) -> Row:
        """Mean, half-width and number of seeds of a node's primary metric on test; empty where it was not measured."""
        return row(row(self.over.get(self.by.name)).get(name))

    @property
    def first(self) -> RunFolder:
        """The folder of the first seed that was begun."""
        return next(iter(self.run.runs.values()), self.run)


def _place(role: str) -> int:
    return ROLES.index(role) if role in ROLES else ROLES.index("agent")


def row(value: Any) -> Row:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def at(value: Any, path: tuple[str, ...]) -> Any:
    """What stands at a path of keys; None where there is nothing."""
    for key in path:
        value = row(value).get(key)
    return value


def sound(value: Any) -> Any:
    """The value with None in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: sound(one) for key, one in value.items()}
    if isinstance(value, list):
        return [sound(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def titled(by: Figure) -> str:
    """A metric with its direction, as an axis names it."""
    return f"{by.title} on test ({'higher' if by.higher else 'lower'} is better)"
