"""Agents behind endpoints: which they are, and what has no meaning for them or must not reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.graph.private import private_streams

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import ModelRef

ASKED = "it is behind an endpoint, and is asked in runs alone, which keep what it says"
ELSEWHERE = "is behind an endpoint, and has no weights"


def is_served(model: ModelRef | None, registry: Registry) -> bool:
    """Whether a model is behind an endpoint."""
    if model is None or model.is_import or model.name not in registry.names("models"):
        return False
    return registry.find("models", model.name).served


def served(plan: Plan, registry: Registry) -> list[str]:
    """The agents behind endpoints."""
    agents = plan.spec.agents
    return [name for name in agents if is_served(agents[plan.owner[name]].model, registry)]


def refuse_served(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for what such an agent cannot do, would not read, or must not be sent."""
    private = private_streams(plan.spec)
    names = served(plan, registry)
    for name in names:
        _agent(plan, name)
        for edge in plan.edges:
            if edge.source == name:
                _refuse_private(name, edge.stream, private, f"{edge.where}.stream")
                _edge(plan, registry, name, edge)
        for stream, spec in plan.spec.streams.items():
            if spec.generated_by == name and spec.prompts is not None:
                _refuse_private(name, spec.prompts, private, plan.at(f"streams.{stream}.prompts"))
                if spec.sampling is not None and spec.sampling.top_k is not None:
                    what = "servers that do not know `top_k` leave it out without a word, so that it is not sent"
                    instead = "top_p, or, where this server knows it, agents.NAME.model.api.extra: {top_k: ...}"
                    raise MeshError(what, where=plan.at(f"streams.{stream}.sampling.top_k"), instead=instead)
    for name, agent in plan.spec.agents.items():
        if agent.ema is not None and plan.owner[agent.ema.of] in names:
            what = f"{agent.ema.of} {ELSEWHERE} to follow"
            raise MeshError(what, where=plan.at(f"agents.{name}.update"), instead="an agent that trains")
    for flow in plan.merging.flows:
        if plan.owner.get(flow.source) in names:
            what = f"{flow.source} {ELSEWHERE} that could flow"
            raise MeshError(what, where=flow.where, instead="a flow of what it says")


def _agent(plan: Plan, name: str) -> None:
    agent, where = plan.spec.agents[name], plan.at(f"agents.{name}")
    if name == plan.owner[name] and agent.update != "frozen":
        what = f"{name} {ELSEWHERE} that could change"
        raise MeshError(what, where=f"{where}.update", instead="update: frozen")
    for field in ("weights", "seed", "init_of", "saved", "exit"):
        if getattr(agent, field) is not None:
            what = f"{name} {ELSEWHERE}: `{field}` has no effect"
            raise MeshError(what, where=f"{where}.{field}", instead="leave it out")
    if agent.taps:
        what = f"{name} is behind an endpoint, which shows none of its layers"
        raise MeshError(what, where=f"{where}.taps", instead="leave it out")
    for field in ("precision", "forward_size"):
        if getattr(agent.train, field) not in (None, getattr(plan.spec.train, field)):
            what = f"{name} is asked and not forwarded, so that `{field}` has no effect"
            raise MeshError(what, where=f"{where}.train.{field}", instead="leave it out")
    if name in plan.inputs:
        what = f"{name} is sent texts, and would be given what {plan.inputs[name].source} says in their place"
        raise MeshError(what, where=plan.inputs[name].where, instead="a flow into an agent that computes here")


def _refuse_private(name: str, stream: str, private: set[str], where: str) -> None:
    if stream in private:
        what = f"{stream} is private, and {name} would be sent its samples"
        raise MeshError(what, where=where, instead="a stream that is not private, or an agent on this machine")


def _edge(plan: Plan, registry: Registry, name: str, edge: Edge) -> None:
    """Refuse a temperature at which nothing can be said of what is not listed."""
    model: Any = plan.spec.agents[plan.owner[name]].model
    if model.config.get("read", "logprobs") == "logprobs" and model.config.get("missing", "bound") == "refuse":
        return  # every label's log-probability is there
    hot = _temperature(plan, registry, edge)
    if hot != 1.0:
        raise MeshError(
            f"what {name} says at temperature {hot:g} cannot be computed from what an endpoint lists at 1: it takes "
            "all outputs",
            where=edge.where,
            instead="temperature: 1, or, of a labeller that always lists every label, model.api.missing: refuse",
        )


def _temperature(plan: Plan, registry: Registry, edge: Edge) -> float:
    """At which a flow, or the consensus that it reaches, compares."""
    if edge.target in plan.consensus:
        return plan.consensus[edge.target].temperature
    if edge.objective is None:
        return 1.0
    offer = registry.find("objectives", edge.objective.name)
    field = offer.config.model_fields.get("temperature")
    return float(edge.objective.config.get("temperature", 1.0 if field is None else field.default))
