"""Forms of answers: an agent's own, for what it says where it is frozen or has finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.unkept import unkept_on

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry

USUAL, PACKED = "exact", "packed"
LEAVE = f"leave it out, or form: {USUAL}"


def refuse_forms(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for the form of an agent's answers that nobody reads, or not in that form."""
    for name, agent in plan.spec.agents.items():
        if agent.answers.form == USUAL:
            continue
        where = plan.at(f"agents.{name}.answers.form")
        edges = [edge for edge in plan.edges if edge.source == name]
        if not edges:
            raise MeshError(f"nobody reads what {name} says, so its form has no effect", where=where, instead=LEAVE)
        for edge in edges:
            if why := _unkept(plan, edge):
                raise MeshError(f"{edge} carries what is in no form: {why}", where=where, instead=LEAVE)
            if (lost := unkept_on(plan, registry, edge)) is not None:
                what = f"what {edge} carries is not kept, in no form: {lost.why}"
                raise MeshError(what, where=where, instead=f"{lost.instead} ({lost.where}); or {LEAVE}")
            kind = None if edge.derived is None else registry.find("signals", edge.derived.name)
            if agent.answers.form == PACKED and (kind is None or not kind.sparse):
                raise MeshError(
                    f"{edge} carries {edge.signal}, which {'is not kept' if edge.asked else 'names no outputs'}, so "
                    "there is nothing that packs",
                    where=where, instead="int8, or the signal sampled or top_k on all of its flows",
                )  # fmt: skip


def _unkept(plan: Plan, edge: Edge) -> str:
    """Why what a flow carries is not answers that could be kept; "" where it is."""
    frozen = plan.spec.agents[plan.owner[edge.source]].update == "frozen"
    if not edge.detach:
        return "a gradient passes"
    if edge.as_ == "input" and edge.target in plan.spec.agents:
        return f"{edge.target} sees it in the place of samples, and is measured on it as it is computed"
    if edge.mode == "train":
        return "it is answered in train mode"
    if edge.stale in ("snapshot", "recorded"):
        return f"`stale: {edge.stale}` is no answer of weights that no longer change"
    if not frozen and (edge.live or edge.refresh != "once"):
        return f"{edge.source} still trains (`refresh: {edge.refresh}`)"
    return ""
