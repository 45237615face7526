"""Flows whose losses are averaged by groups of rows, or are of a part of them: what cannot be run, or does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan

OUT = "leave `denominator` out"


def refuse_denominators(plan: Plan) -> None:
    """Raise MeshError for the first such flow in the plan."""
    for edge in plan.edges:
        if edge.group and (problem := _problem(plan, edge)):
            raise MeshError(problem[0], where=f"{edge.where}.denominator", instead=problem[1])


def refuse_parts(plan: Plan) -> None:
    """Raise MeshError for the first flow of a part of answers that cannot be, and for marks that nothing looks for."""
    marks = plan.spec.text.reasoning
    if marks is not None and plan.task.outputs != "vocabulary":
        what = f"task {plan.task.name} writes no answers, so `reasoning` has no effect"
        raise MeshError(what, where="text.reasoning", instead="leave it out")
    for edge in plan.edges:
        if not edge.part:
            continue
        problem = _problem(plan, edge)
        if plan.task.outputs != "vocabulary":
            problem = f"task {plan.task.name} writes no answers, so this has no effect", OUT
        elif marks is None:
            problem = "nothing says where reasoning ends", "text: {reasoning: [<think>, </think>]}"
        elif edge.group:
            problem = f"{edge} has a denominator, and this would weigh its rows again", "one of the two"
        if problem:
            instead = problem[1].replace("`denominator`", "`part`")
            raise MeshError(problem[0], where=f"{edge.where}.part", instead=instead)


def _problem(plan: Plan, edge: Edge) -> tuple[str, str] | None:
    node, stream = plan.consensus.get(edge.source), plan.spec.streams.get(edge.stream)
    if edge.target not in plan.spec.agents or edge.as_ != "target":
        return f"{edge} adds no loss, so this has no effect", OUT
    if {"spans", "text", "pairs"} & {*edge.needs} or edge.unaligned:
        return f"the rows that {edge} compares are not those of single samples", OUT
    if edge.gate is not None:
        return f"the gate of {edge} says which rows count, and this would weigh them again", "one of the two"
    if node is not None and node.space in ("loss", "gradient"):
        return f"{node.name} weighs the losses of its sources itself", "space: probs or logits on the consensus"
    if stream is not None and stream.generated_by is not None and stream.prompts is None:
        return f"stream {edge.stream!r} is written from Python and has no columns or parts", OUT
    if plan.train(edge.target).accumulate > 1:
        what = f"{edge.target} accumulates batches, and rows are counted in each"
        return what, "a larger batch_size with accumulate: 1"
    return None
