"""The proof, by the samples' ids, that private samples stay with whose they are; `graph/private.py` sees names only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.graph.private import MEASURED, agents_of, owners_of, refuse
from kdmesh.graph.sources import below

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.streams.stream import Stream


def prove(plan: Plan, found: Checked) -> None:
    """Refuse an edge that shows a private sample to anyone but its owner, whatever stream names it."""
    private = {name: stream for name, stream in found.streams.items() if stream.private}
    if not private:
        return
    for stream in private.values():
        for measured in MEASURED:
            if measured in found.streams and _common(found.streams[measured].rows, stream.rows):
                raise MeshError(
                    f"samples of {measured!r}, on which every agent is measured, are private here",
                    where=f"streams.{stream.name}",
                    instead="of: train",
                )
    owners = owners_of(plan.spec, plan.edges, plan.consensus)
    seen: set[tuple[str, str]] = set()
    for edge in plan.edges:
        for agent in agents_of(edge, plan.spec, plan.consensus):
            if found.streams[edge.stream].pooled:
                continue  # a simulation, which says so
            if edge.stream in private and plan.input_on(agent, edge.stream) is not None:
                continue  # it sees what their owner says of them, as flows disclose
            if (edge.stream, agent) not in seen:
                seen.add((edge.stream, agent))
                _seen(plan, edge, agent, found.streams[edge.stream], {name: private[name] for name in owners}, owners)


def _seen(
    plan: Plan, edge: Edge, agent: str, stream: Stream, private: dict[str, Stream], owners: dict[str, list[str]]
) -> None:
    """Refuse an edge if some of what an agent sees of its stream is private to others."""
    if stream.shards is not None and agent not in stream.shards:
        return  # refused where batches are counted: it says who has shards
    rows = stream.rows_for(agent)
    for other in private.values():
        theirs = other.rows
        if other.shards is not None:
            theirs = theirs[~torch.isin(theirs, other.shards.get(agent, theirs[:0]))]
        elif agent in owners[other.name] or other.name in below(plan.spec, stream.name):
            continue
        if count := _common(rows, theirs):
            refuse(edge, agent, f"{count} of the {len(rows)} samples of {stream.name!r}", other.name)


def _common(one: Tensor, two: Tensor) -> int:
    return int(torch.isin(one, two).sum())
