"""Labels of private samples, told to agents of others where a flow from labels says `discloses: labels`.

They cross once, before a stage, as a publication of the agent whose samples they are. The reader's host then has them
in its table, where all that reads labels finds them; its samples stay blank.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from kdmesh.graph.edges import LABELS
from kdmesh.hosts import build
from kdmesh.hosts.packing import Published, pack, unpack
from kdmesh.hosts.publications import Key
from kdmesh.streams.private import NOBODY

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.hosts.state import HostState


def tell(host: HostState, agent: str, stream: str) -> Published:
    """The labels of an agent's samples on a stream."""
    assert host.table.y is not None
    own = host.streams[stream]
    return {Key(agent, own.base or own.name, LABELS): pack((host.table.y[own.rows_for(agent)], {}))}


def take(host: HostState, *published: Published) -> None:
    """Keep labels that agents of others tell, and build what waited for them."""
    for key, packed in (item for part in published for item in part.items()):
        values, _ = unpack({0: packed}, torch.device("cpu"))[0]
        assert host.table.y is not None
        y = host.table.y.clone()
        y[host.streams[key.stream].rows_for(key.source)] = values
        host.table = host.reading.table = replace(host.table, y=y)
        host.loader.forget(key.stream, key.source)
    for edge in host.plan.edges:
        if edge.target in host.agents and edge.objective and edge.id not in host.objectives and not awaited(host, edge):
            host.objectives[edge.id] = build.objective(host, edge)


def awaited(host: HostState, edge: Edge) -> bool:
    """Whether an objective of an agent here is about samples of others whose labels have not come yet."""
    if host.plan.input_on(edge.target, edge.stream) is None or host.table.y is None:
        return False
    told = any(
        one.discloses == LABELS and (one.target, one.stream) == (edge.target, edge.stream) for one in host.plan.edges
    )
    return told and bool((host.table.y[host.streams[edge.stream].rows_for(edge.target)] == NOBODY).any())
