"""What the agents of a finished run tell of the samples that it learned from: membership by loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.audits.membership import Membership, loss_scores, measured
from kdmesh.contracts.run_files import MANIFEST
from kdmesh.errors import MeshError
from kdmesh.files import read_json
from kdmesh.graph.planner import make_plan
from kdmesh.graph.reach import behind
from kdmesh.hosts.source import Source
from kdmesh.inference.trained import Trained
from kdmesh.plugins import registry
from kdmesh.signals.lazy import dense
from kdmesh.spec import MeshSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kdmesh.graph.plan import Plan
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

AGENTS, TEST = "agents", "test"


@dataclass(frozen=True)
class Audited:
    """How well samples are told that ``learned_by`` has learned, by the losses of ``agent``: itself, or a teacher of
    its, whose samples it has not seen. ``accuracy``: of the agent on such samples, and on the others."""

    agent: str
    learned_by: str
    membership: Membership
    accuracy: tuple[float, float]


@dataclass
class Audit:
    """All that was audited, and what was left out, by agent, with the reason."""

    found: list[Audited]
    left: dict[str, str]


def audit(root: Path, spec: MeshSpec, rate: float = 0.01) -> Audit:
    """Audit the agents of a run's folder, of one seed. MeshError where its samples are not here, or all learned."""
    if not 0 < rate < 1:
        raise MeshError(f"is {rate!r}", where="--rate", instead="a rate between 0 and 1, as 0.01")
    plan = make_plan(spec, registry())
    if plan.task.labels != "classes" or plan.task.rows != "samples":
        what = f"the run's task is {plan.task.name}, and membership is told by the loss of a class"
        raise MeshError(what, where="RUN", instead="a run that classifies samples")
    table, streams = Source().load(plan)
    known = (read_json(root / MANIFEST) or {}).get("data") or {}
    if {name: known.get(name) for name in table.fingerprint} != table.fingerprint:
        what = "the data set has other samples now than the run had, by their sha256"
        raise MeshError(what, where="RUN", instead="the files as they were")
    learned = {name: _learned(plan, name, table, streams) for name in plan.spec.agents}
    held = torch.zeros(len(table), dtype=torch.bool)
    if TEST in streams:
        held[streams[TEST].rows] = True
    for one in learned.values():
        held &= ~one
    if table.y is not None:
        held &= table.y >= 0
    if not held.any():
        raise MeshError("it has no test samples that nobody learned", where="RUN", instead="a run with a test split")
    return _audited(root, plan, table, learned, held, rate)


def _learned(plan: Plan, agent: str, table: Table, streams: dict[str, Stream]) -> Tensor:
    """Which samples an agent's weights have seen in this run, ``[N]`` bool."""
    found = torch.zeros(len(table), dtype=torch.bool)
    for edge in plan.edges:
        if edge.target in plan.owner and plan.owner[edge.target] == plan.owner[agent]:
            stream = streams[edge.stream]
            found[stream.rows_for(edge.target) if stream.shards is not None else stream.every] = True
    return found


def _teachers(plan: Plan, agent: str) -> list[str]:
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


def _audited(root: Path, plan: Plan, table: Table, learned: dict[str, Tensor], held: Tensor, rate: float) -> Audit:
    audit = Audit([], {})
    for agent in plan.spec.agents:
        folder = root / AGENTS / agent
        try:
            if not folder.is_dir():
                raise MeshError("it has no folder in the run")
            trained = Trained.read(folder)
            if trained.config.class_numbers is not None:
                raise MeshError("it knows some of the classes alone")
            every = {agent: learned[agent]}
            seen = learned[agent]
            every |= {one: learned[one] & ~seen for one in _teachers(plan, agent)}
            every = {name: mask for name, mask in every.items() if _labelled(table, mask).any()}
            if not every:
                raise MeshError("it learned no sample of this run, and nobody whom it heard did")
            others = _losses(trained, table, held)
            for name, mask in every.items():
                losses = _losses(trained, table, _labelled(table, mask))
                told = measured(loss_scores(losses[0].numpy()), loss_scores(others[0].numpy()), rate)
                audit.found.append(Audited(agent, name, told, (losses[1], others[1])))
        except MeshError as error:
            audit.left[agent] = error.what
    return audit


def _labelled(table: Table, mask: Tensor) -> Tensor:
    return mask if table.y is None else mask & (table.y >= 0)


def _losses(trained: Trained, table: Table, mask: Tensor) -> tuple[Tensor, float]:
    """The loss of each sample ``[n]`` float64, and the accuracy on them."""
    rows = mask.nonzero().flatten()
    assert table.y is not None
    x: Any = table.x[rows] if not table.is_text else trained.tokens(list(table.texts[rows]))
    if not table.is_text and trained.config.agent in table.own:
        x = table.own[trained.config.agent][0][rows]
    scores = dense(trained.scores(x if isinstance(x, torch.Tensor) or table.is_text else x[:])).double()
    y = table.y[rows]
    losses = torch.nn.functional.cross_entropy(scores, y, reduction="none")
    return losses, float((scores.argmax(1) == y).double().mean())
