"""Agents without weights, which are asked or look their answers up: what has no meaning for any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import ModelRef


def of_model(plan: Plan, registry: Registry, is_one: Callable[[ModelRef | None, Registry], object]) -> list[str]:
    """The agents whose model is of a kind, their own or that of the agent whose weights they have."""
    agents = plan.spec.agents
    return [name for name in agents if is_one(agents[plan.owner[name]].model, registry)]


def refuse_weights(plan: Plan, name: str, why: str, fields: Sequence[str], given: str) -> None:
    """Raise MeshError for settings and flows of an agent that are about weights, or about forwards.

    ``why``: what it does in place of computing; ``fields``: of weights, beside `update`; ``given``: what it does with
    samples, which a flow would replace.
    """
    agent, where = plan.spec.agents[name], plan.at(f"agents.{name}")
    if name == plan.owner[name] and agent.update != "frozen":
        what = f"{name} {why}, and has no weights that could change"
        raise MeshError(what, where=f"{where}.update", instead="update: frozen")
    for field in fields:
        if getattr(agent, field) is not None:
            what = f"{name} {why}, and has no weights: `{field}` has no effect"
            raise MeshError(what, where=f"{where}.{field}", instead="leave it out")
    for field in ("precision", "forward_size"):
        if getattr(agent.train, field) not in (None, getattr(plan.spec.train, field)):
            what = f"{name} {why}, so that `{field}` has no effect"
            raise MeshError(what, where=f"{where}.train.{field}", instead="leave it out")
    if name in plan.inputs:
        what = f"{name} {given}, and would be given what {plan.inputs[name].source} says in their place"
        raise MeshError(what, where=plan.inputs[name].where, instead="a flow into an agent that computes here")
    for flow in plan.merging.flows:
        if plan.owner.get(flow.source) == name:
            what = f"{flow.source} {why}, and has no weights that could flow"
            raise MeshError(what, where=flow.where, instead="a flow of what it says")
