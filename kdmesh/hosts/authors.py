"""Who writes the streams of texts on a host: its agents here, or those behind endpoints that it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.hosts.agreeing import Agreeing
from kdmesh.hosts.asked_texts import AskedWriting
from kdmesh.hosts.generating import Writing
from kdmesh.hosts.looked_up import asks

if TYPE_CHECKING:
    from kdmesh.hosts.rollouts import Author
    from kdmesh.hosts.state import HostState


def authors(host: HostState) -> dict[str, Author]:
    """What writes the streams of texts of a host's agents."""
    found: dict[str, Author] = {}
    for name, stream in host.plan.spec.streams.items():
        agent = stream.generated_by
        if stream.prompts is not None and agent is not None and agent in host.agents:
            here = Writing if stream.consensus_of is None else Agreeing
            kind = AskedWriting if here is Writing and asks(host.agents[agent]) else here
            found[name] = host.config.authors.get(name) or kind(host, name, agent)
    return found
