"""Agents that look their answers up, in place of computing them: which they are, and what has no meaning for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.private import private_streams

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import ModelRef

THERE = "what it says is in the store already"


def lookup(model: ModelRef | None, registry: Registry) -> str:
    """Of a model that looks its answers up, what settles its settings, an import string; "" of any other."""
    if model is None or model.is_import or model.name not in registry.names("models"):
        return ""
    return registry.find("models", model.name).lookup


def looked_up(plan: Plan, registry: Registry) -> list[str]:
    """The agents that look their answers up."""
    agents = plan.spec.agents
    return [name for name in agents if lookup(agents[plan.owner[name]].model, registry)]


def refuse_looked_up(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for what such an agent cannot do, or would not read."""
    private = private_streams(plan.spec)
    for name in looked_up(plan, registry):
        agent, where = plan.spec.agents[name], plan.at(f"agents.{name}")
        if name == plan.owner[name] and agent.update != "frozen":
            what = f"{name} looks its answers up, and has no weights that could change"
            raise MeshError(what, where=f"{where}.update", instead="update: frozen")
        for field in ("weights", "seed", "init_of", "saved"):
            if getattr(agent, field) is not None:
                what = f"{name} looks its answers up, and has no weights: `{field}` has no effect"
                raise MeshError(what, where=f"{where}.{field}", instead="leave it out")
        if agent.view.augment or agent.view.prompt is not None:
            what = f"{name} looks samples up by their content, and a view of one is another sample"
            raise MeshError(what, where=f"{where}.view", instead="leave it out; its readers may have views")
        for field in ("precision", "forward_size"):
            if getattr(agent.train, field) not in (None, getattr(plan.spec.train, field)):
                what = f"{name} looks its answers up, so that `{field}` has no effect"
                raise MeshError(what, where=f"{where}.train.{field}", instead="leave it out")
        if name in plan.inputs:
            what = f"{name} looks samples up, and would be given what {plan.inputs[name].source} says in their place"
            raise MeshError(what, where=plan.inputs[name].where, instead="a flow into an agent that computes")
        _streams(plan, name, private)
    for name, agent in plan.spec.agents.items():
        if agent.ema is not None and lookup(plan.spec.agents[plan.owner[agent.ema.of]].model, registry):
            what = f"{agent.ema.of} looks its answers up, and has no weights to follow"
            raise MeshError(what, where=plan.at(f"agents.{name}.update"), instead="an agent that trains")


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
            what = f"the samples of {edge.stream} are written anew, and {name} looks its answers up"
            raise MeshError(what, where=f"{edge.where}.stream", instead="a stream of samples that stay")
