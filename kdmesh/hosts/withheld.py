"""What a party with a privacy budget does not tell: losses, figures, decisions and hashes are made of its samples.

A hash of weights is, too: who knows all samples but one tells by it whether a guess of that one is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.graph.digests import of_run
from kdmesh.hosts.step import Report

if TYPE_CHECKING:
    from kdmesh.hosts.guard import Oddity
    from kdmesh.hosts.state import HostState

PUBLIC = ("parameters", "latency_ms", "forwards", "updates", "left_out", "chance")
"""What describes an agent and is made of the mesh, the public samples and the clock."""
NOTHING: dict[str, Any] = {"weights_sha256": "", "moved": None, "reports": {}, "gates": {}, "softened": False,
                           "put_back": ""}  # fmt: skip


def report(host: HostState, told: Report) -> Report:
    """How steps went: that they did."""
    return Report({}, [], [], told.wrote) if host.withholds else told


def oddities(host: HostState, odd: list[Oddity]) -> list[Oddity]:
    """Oddities of answers."""
    return [] if host.withholds else odd


def figures(host: HostState, agent: str, stream: str, found: dict[str, Any]) -> dict[str, Any]:
    """An agent's figures on a stream: its party keeps them."""
    if not host.withholds or agent in host.plan.private_agents:
        return found
    known = host.config.accounts.get(host.name)
    if known is not None and found:
        known.keep(mesh=of_run(host.plan), agent=agent, stream=stream, figures=found)
    return {}


def described(host: HostState, agent: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What describes an agent; of one that trains privately all that is made of its weights."""
    if not host.withholds:
        return facts
    told = ("weights_sha256", "moved") if agent in host.plan.private_agents else ()
    return {name: facts[name] for name in PUBLIC} | NOTHING | {name: facts[name] for name in told}
