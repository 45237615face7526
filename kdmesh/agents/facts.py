"""What objectives and rules are given beside signals: labels, ids, what rows are about, and columns of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError, nearest
from kdmesh.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.agents.feed import Batch, Lane
    from kdmesh.agents.host import Host
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan
    from kdmesh.streams.table import Table


def of_stream(host: Host, edge: Edge) -> dict[str, Any]:
    """What an objective's `setup` gets, of the whole stream."""
    if not edge.needs:
        return {}
    lane = host.feed.lane(edge.stream, edge.target, torch.device(host.plan.train(edge.target).device))
    known: dict[str, Any] = {"ids": lane.ids, "labels": lane.y}
    found = {name: known[name] for name in edge.needs if name in known}
    if "tokens" in edge.needs:
        found["tokens"] = host.reading.encoder(edge.target).words()
        found["source_tokens"] = host.reading.encoder(speaker(host.plan, edge.source)).words()
    return found


def speaker(plan: Plan, node: str) -> str:
    """The agent in whose tokens a node speaks: itself, or, of a consensus, any of its members, which read alike."""
    while node in plan.consensus:
        node = plan.consensus[node].members[0].source
    return node


def of_batch(needs: tuple[str, ...], lane: Lane, batch: Batch, theirs: Batch | None) -> dict[str, Tensor | None]:
    """What an objective is called with: of the reader's batch, and, between unlike tokens, of the source's."""
    found: dict[str, Tensor | None] = {}
    if "ids" in needs:
        found["ids"] = lane.samples(batch.at)
    if "spans" not in needs:
        return found | ({"labels": batch.y} if "labels" in needs else {})
    assert theirs is not None and not isinstance(batch.x, Tensor) and not isinstance(theirs.x, Tensor)
    found |= {"spans": batch.x.spans, "source_spans": theirs.x.spans}
    if "labels" in needs:  # what is read is known, also where a stream hides what is to be learned
        found |= {"labels": batch.x.targets, "source_labels": theirs.x.targets}
    return found


def own_classes(y: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which of ``classes`` each label is, ``[N]`` int64, 0 for none of them; and whether it is one, ``[N]`` bool."""
    same = y[:, None] == torch.tensor(classes, device=y.device)
    return same.int().argmax(1), same.any(1)


def labels(y: Tensor, classes: Sequence[int] | None) -> Signal:
    """Labels as one learns them who knows only some classes: by its own columns, other samples with weight 0."""
    if classes is None:
        return Signal(y, "labels")
    own, known = own_classes(y, classes)
    return Signal(own, "labels", known.float())


def distinct(plan: Plan, table: Table) -> dict[str, list[str]]:
    """The different values of each column that a rule reads, sorted, in the data of all hosts."""
    names = {node.column for node in plan.consensus.values() if node.column in table.columns}
    return {name: sorted(set(table.columns[name]) - {""}) for name in names}


def columns(host: Host, node: ConsensusNode) -> list[str]:
    """The different values of the column of the data that a rule reads, sorted."""
    if node.column not in host.values:
        raise MeshError(
            f"the data have no column {node.column!r}",
            where=f"consensus.{node.name}.rule.{node.rule.name}.column",
            instead=nearest(node.column, host.table.columns, "columns"),
        )
    return host.values[node.column]


def numbers(host: Host, node: ConsensusNode, lane: Lane) -> Tensor:
    """The number of each sample's value among :func:`columns`, ``[n]`` int64, -1 for none; one for each unit of it."""
    values = {value: number for number, value in enumerate(columns(host, node))}
    column = host.table.columns[node.column]
    found = torch.tensor([values.get(column[row], -1) for row in lane.ids.tolist()], device=lane.device)
    return found if lane.counts is None else torch.repeat_interleave(found, lane.counts)
