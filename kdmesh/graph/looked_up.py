"""Agents that look their answers up, in place of computing them: which they are, and what has no meaning for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.private import private_streams
from kdmesh.graph.weightless import of_model, refuse_weights

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import ModelRef

LOOKS = "looks its answers up"
THERE = "what it says is in the store already"


def lookup(model: ModelRef | None, registry: Registry) -> str:
    """Of a model that looks its answers up, what settles its settings, an import string; "" of any other."""
    if model is None or model.is_import or model.name not in registry.names("models"):
        return ""
    return registry.find("models", model.name).lookup


def looked_up(plan: Plan, registry: Registry) -> list[str]:
    """The agents that look their answers up."""
    return of_model(plan, registry, lookup)


def refuse_looked_up(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for what such an agent cannot do, or would not read."""
    private = private_streams(plan.spec)
    for name in looked_up(plan, registry):
        refuse_weights(plan, name, LOOKS, ("weights", "seed", "init_of", "saved"), "looks samples up")
        view = plan.spec.agents[name].view
        if view.augment or view.prompt is not None:
            what = f"{name} looks samples up by their content, and a view of one is another sample"
            where = plan.at(f"agents.{name}.view")
            raise MeshError(what, where=where, instead="leave it out; its readers may have views")
        _streams(plan, name, private)


def _streams(plan: Plan, name: str, private: set[str]) -> None:
    """Refuse flows of an agent on samples of which the store has nothing."""
    for edge in plan.edges:
        if edge.source != name:
            continue
        stream = plan.spec.streams.get(edge.stream)
        if edge.stream in private:
            what = f"{edge.stream} is private, and nothing in the store was said of private samples"
            raise MeshError(what, where=f"{edge.where}.stream", instead="a stream that is not private")
        if stream is not None and stream.generated_by is not None:
            what = f"the samples of {edge.stream} are written anew, and {name} {LOOKS}"
            raise MeshError(what, where=f"{edge.where}.stream", instead="a stream of samples that stay")
