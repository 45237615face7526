"""Agents behind endpoints: which they are, and what has no meaning for them or must not reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.graph.private import private_streams
from kdmesh.graph.weightless import of_model, refuse_weights

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import ModelRef

ASKED = "it is behind an endpoint, and is asked in runs alone, which keep what it says"
BEHIND = "is behind an endpoint"
ELSEWHERE = f"{BEHIND}, and has no weights"


def is_served(model: ModelRef | None, registry: Registry) -> bool:
    """Whether a model is behind an endpoint."""
    if model is None or model.is_import or model.name not in registry.names("models"):
        return False
    return registry.find("models", model.name).served


def served(plan: Plan, registry: Registry) -> list[str]:
    """The agents behind endpoints."""
    return of_model(plan, registry, is_served)


def refuse_served(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for what such an agent cannot do, would not read, or must not be sent."""
    private = private_streams(plan.spec)
    for name in served(plan, registry):
        refuse_weights(plan, name, BEHIND, ("weights", "seed", "init_of", "saved", "exit"), "is sent texts")
        if plan.spec.agents[name].taps:
            what = f"{name} {BEHIND}, which shows none of its layers"
            raise MeshError(what, where=plan.at(f"agents.{name}.taps"), instead="leave it out")
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
