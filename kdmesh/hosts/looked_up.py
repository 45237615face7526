"""Agents that look their answers up on this host: which samples these have none for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.graph.looked_up import lookup
from kdmesh.text.api import ApiModel

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.state import HostState


def looks_up(host: HostState, one: Agent) -> bool:
    """Whether an agent looks its answers up. A stand-in for its model, in the trial before a run, does not."""
    model = host.plan.spec.agents[host.plan.owner[one.name]].model
    return bool(lookup(model, host.registry)) and hasattr(one.module, "lacking")


def asks(one: Agent) -> bool:
    """Whether an agent is behind an endpoint, and asks for its answers, which are kept as they come."""
    return isinstance(one.module, ApiModel)


def lacking(host: HostState, one: Agent, x: Any) -> Tensor | None:
    """The samples of ``x`` on which an agent cannot be measured for want of an answer, ``[n]`` bool.

    None of one that computes.
    """
    if not looks_up(host, one) and not asks(one):
        return None
    module: Any = one.module
    found: Tensor = module.lacking(x, measuring=True)
    return found
