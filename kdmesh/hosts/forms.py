"""The form in which what an agent says teaches: put on here, with a store or without, so that bits are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.store.forms import EXACT, PACKED
from kdmesh.store.signals import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from kdmesh.hosts.ragged import Value
    from kdmesh.hosts.state import HostState
    from kdmesh.signals.lazy import Lazy


def form_of(host: HostState, agent: str) -> str:
    """The form that an agent's answers are kept in and read in."""
    return host.plan.spec.agents[agent].answers.form


def parts(agent: str, values: Mapping[str, Tensor | Lazy], form: str) -> dict[str, Parts]:
    """An agent's answer as it is kept, by name, "" its logits. MeshError for what a form cannot hold."""
    try:
        return {name: Parts.of(one, form) for name, one in values.items()}
    except MeshError as error:
        error.where = f"agents.{agent}.answers.form"
        raise


def former(host: HostState, agent: str) -> Callable[[Value], Value]:
    """What makes of an agent's answers those that others read, with the errors of its form."""
    form = form_of(host, agent)

    def formed(value: Value) -> Value:
        own = {} if form == PACKED else {"": value[0]}  # nobody reads logits of an agent that packs what it says
        known = parts(agent, {**own, **value[1]}, form)
        return known[""].value if own else value[0], {name: known[name].value for name in value[1]}

    return (lambda value: value) if form == EXACT else formed
