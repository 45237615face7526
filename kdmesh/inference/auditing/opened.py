"""A finished run as an auditor sees it: its samples, and which of them each agent has learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kdmesh.contracts.run_files import MANIFEST
from kdmesh.errors import MeshError
from kdmesh.files import read_json
from kdmesh.graph.planner import make_plan
from kdmesh.graph.reach import behind
from kdmesh.hosts.source import Source
from kdmesh.inference.trained import Trained
from kdmesh.plugins import registry
from kdmesh.streams.private import told_part

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

AGENTS, TEST = "agents", "test"
TOKENS = "tokens"


@dataclass
class Opened:
    """``learned``: by agent, the samples that its weights have seen in this run, ``[N]`` bool, without canaries;
    ``held``: test samples that nobody has, nor any with the same values."""

    root: Path
    plan: Plan
    table: Table
    streams: dict[str, Stream]
    learned: dict[str, Tensor]
    held: Tensor

    @property
    def writes(self) -> bool:
        """Whether the task is to model texts."""
        return self.plan.task.source == TOKENS

    @property
    def planted(self) -> Tensor:
        """The rows of canaries, ``[N]`` bool."""
        found = torch.zeros(len(self.table), dtype=torch.bool)
        if self.table.planted is not None:
            found[self.table.planted.rows] = True
        return found

    def told(self, agent: str) -> dict[str, Tensor]:
        """What an agent may tell: by who learned it, its own samples, and those of its teachers that it never saw."""
        seen = self.learned[agent]
        every = {agent: seen}
        every |= {one: self.learned[one] & ~seen for one in teachers(self.plan, agent)}
        return {name: mask for name, mask in every.items() if mask.any()}

    def reached(self, agent: str) -> list[str]:
        """By whom canaries can have come to an agent: itself, or teachers of its."""
        hearers = [agent, *teachers(self.plan, agent)]
        return [one for one in hearers if (seen_by(self.plan, one, self.table, self.streams) & self.planted).any()]

    def agent(self, name: str) -> Trained:
        """One of them, out of its folder. MeshError where it is not there, or answers no sample of this task."""
        folder = self.root / AGENTS / name
        if not folder.is_dir():
            raise MeshError("it has no folder in the run")
        trained = Trained.read(folder)
        if trained.config.class_numbers is not None:
            raise MeshError("it knows some of the classes alone")
        if trained.writes != self.writes:
            raise MeshError(f"it is a model of {trained.config.task}, and the run's task is {self.plan.task.name}")
        if not any(True for _ in trained.module.parameters()) and trained.writes:
            raise MeshError("it has no weights here, and says no likelihood of a text")
        return trained


def opened(root: Path, spec: MeshSpec) -> Opened:
    """A run's folder, of one seed. MeshError where its samples are not here any more, or its task has no audit."""
    plan = make_plan(spec, registry())
    if plan.task.source != TOKENS and (plan.task.labels != "classes" or plan.task.rows != "samples"):
        what = f"the run's task is {plan.task.name}, and membership is told by the loss of a class, or of a text"
        raise MeshError(what, where="RUN", instead="a run that classifies samples, or models texts")
    table, streams = Source().load(plan)
    known = (read_json(root / MANIFEST) or {}).get("data") or {}
    told = (told_part(table, streams) if plan.withholding else table).fingerprint  # as the run wrote it
    if {name: known.get(name) for name in told} != told:
        what = "the data set has other samples now than the run had, by their sha256"
        raise MeshError(what, where="RUN", instead="the files as they were")
    return with_table(root, plan, table, streams)


def with_table(root: Path, plan: Plan, table: Table, streams: dict[str, Stream]) -> Opened:
    """The same of samples that are known."""
    seen = {name: seen_by(plan, name, table, streams) for name in plan.spec.agents}
    held = torch.zeros(len(table), dtype=torch.bool)
    if TEST in streams:
        held[streams[TEST].rows] = True
    any_seen = torch.zeros(len(table), dtype=torch.bool)
    for one in seen.values():
        any_seen |= one
    held &= ~torch.isin(table.keys, table.keys[any_seen])
    found = Opened(root, plan, table, streams, {}, held)
    canaries, labelled = found.planted, _labelled(table)
    found.learned = {name: one & ~canaries & labelled for name, one in seen.items()}
    found.held &= labelled
    return found


def _labelled(table: Table) -> Tensor:
    return torch.ones(len(table), dtype=torch.bool) if table.y is None or table.kind != "classes" else table.y >= 0


def seen_by(plan: Plan, agent: str, table: Table, streams: dict[str, Stream]) -> Tensor:
    """Which samples an agent's weights have seen in this run, ``[N]`` bool."""
    found = torch.zeros(len(table), dtype=torch.bool)
    for edge in plan.edges:
        if edge.target in plan.owner and plan.owner[edge.target] == plan.owner[agent]:
            stream = streams[edge.stream]
            found[stream.rows_for(edge.target) if stream.shards is not None else stream.every] = True
    return found


def teachers(plan: Plan, agent: str) -> list[str]:
    """All agents from which something reaches an agent, through others too."""
    found: dict[str, None] = {}
    left = [agent]
    for name in left:  # grows while it is read
        for edge in plan.edges:
            if edge.target == name:
                new = [end.source for end, _ in behind(edge, plan.consensus) if end.source in plan.spec.agents]
                left += [one for one in new if one not in found and one != agent]
                found.update(dict.fromkeys(one for one in new if one != agent))
    return [name for name in plan.spec.agents if name in found]
