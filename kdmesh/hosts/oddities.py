"""Oddities of outputs: they hold numbers that are not finite, or look like probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from kdmesh.hosts import guard

if TYPE_CHECKING:
    from kdmesh.hosts.state import HostState


def softened(host: HostState, agent: str, answers: Any) -> bool:
    """Whether the first logits that were seen of an agent look like probabilities; ``answers``: some more, or None."""
    if agent not in host.softened and isinstance(answers, Tensor) and len(answers):
        host.softened[agent] = guard.is_softened(answers)
    return host.softened.get(agent, False)
