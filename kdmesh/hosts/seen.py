"""What an agent sees in the place of samples: the output of another, by a flow `as: input`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.hosts.packing import unpack
from kdmesh.hosts.publications import Key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.packing import Published
    from kdmesh.hosts.state import HostState


def seen(host: HostState, one: Agent, stream: str, given: Sequence[Published] = ()) -> Any:
    """What an agent sees on a whole stream in the place of samples: of its input; None where it sees samples.

    ``given``: that, as its source publishes it; by default as it last was published here.
    """
    edge = host.plan.inputs.get(one.name)
    if edge is None:
        return None
    own = host.streams[stream]
    key = Key(edge.source, own.base or own.name, edge.output)
    for part in given:
        return unpack({0: part[key]}, one.device)[0][0]
    publication = host.publications.get(key)
    assert publication is not None, f"nothing of {edge} was published"
    return publication.values.to(one.device)
