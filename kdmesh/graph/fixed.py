"""Agents whose model was made elsewhere and answers alone: no gradient passes through it, and it shows no layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.weightless import of_model

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import ModelRef

FILE = "is a model of a file that another library made"
OUT = "leave it out"


def is_fixed(model: ModelRef | None, registry: Registry) -> bool:
    """Whether a model is a file that answers, by its offer."""
    if model is None or model.is_import or model.name not in registry.names("models"):
        return False
    return registry.find("models", model.name).fixed


def refuse_fixed(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for what such an agent cannot do, or would not read."""
    agents = plan.spec.agents
    names = of_model(plan, registry, is_fixed)
    for name in names:
        _agent(plan, name)
        for edge in plan.edges:
            if edge.source == name and not edge.detach:
                what = f"{name} {FILE}: no gradient passes through it"
                raise MeshError(what, where=f"{edge.where}.detach", instead=OUT)
            if edge.source == name and edge.tap is not None and edge.signal != "logits":
                what = f"{name} {FILE}, which shows none of its layers"
                raise MeshError(what, where=f"{edge.where}.tap", instead="a flow of logits")
        if name in plan.inputs and not plan.inputs[name].detach:
            what = f"{name} {FILE}: no gradient passes through it to {plan.inputs[name].source}"
            raise MeshError(what, where=f"{plan.inputs[name].where}.detach", instead=OUT)
    for name, agent in agents.items():
        if agent.ema is not None and plan.owner[agent.ema.of] in names:
            what = f"{agent.ema.of} {FILE}, without weights to follow"
            raise MeshError(what, where=plan.at(f"agents.{name}.update"), instead="an agent that trains")
        if agent.init_of is not None and plan.owner[agent.init_of] in names:
            what = f"{agent.init_of} {FILE}, without weights to begin with"
            raise MeshError(what, where=plan.at(f"agents.{name}.init_of"), instead="an agent with weights")
    for flow in plan.merging.flows:
        for end in (flow.source, flow.target):
            if plan.owner.get(end) in names:
                what = f"{end} {FILE}, without weights that could flow"
                raise MeshError(what, where=flow.where, instead="a flow of what it says")


def _agent(plan: Plan, name: str) -> None:
    agent, where = plan.spec.agents[name], plan.at(f"agents.{name}")
    if name == plan.owner[name] and agent.update != "frozen":
        what = f"{name} {FILE}, and nothing here can train it"
        raise MeshError(what, where=f"{where}.update", instead="update: frozen")
    for field in ("weights", "seed", "init_of", "saved", "exit"):
        if getattr(agent, field) is not None:
            what = f"{name} {FILE}, so that `{field}` has no effect"
            raise MeshError(what, where=f"{where}.{field}", instead=OUT)
    if agent.taps:
        what = f"{name} {FILE}, which shows none of its layers"
        raise MeshError(what, where=f"{where}.taps", instead=OUT)
    if agent.train.precision not in (None, plan.spec.train.precision):
        what = f"{name} {FILE}, which has a precision of its own"
        raise MeshError(what, where=f"{where}.train.precision", instead=OUT)
