"""Histories: of which consensus nodes, and streams that a rule makes, what was said is kept by round, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.private import private_streams
from kdmesh.graph.reach import behind, closure
from kdmesh.graph.renewal import at_line
from kdmesh.graph.sources import written_before

if TYPE_CHECKING:
    from collections.abc import Collection

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.graph.program import Publish

SPACES = ("probs", "marginals", "logits")
OUT = "leave `history` out"


def kept(plan: Plan) -> list[str]:
    """The consensus nodes that have a history."""
    return [name for name in plan.consensus if plan.spec.consensus[name].history is not None]


def kept_texts(plan: Plan) -> list[str]:
    """The streams of texts that have a history."""
    return [name for name, stream in plan.spec.streams.items() if stream.history is not None]


def ends(plan: Plan, name: str) -> list[Edge]:
    """The flows that bring a consensus what it combines, each from an agent."""
    return [end for edge in plan.consensus[name].inputs for end, _ in behind(edge, plan.consensus)]


def before(plan: Plan, stage: Stage) -> list[str]:
    """The nodes that speak once, to this stage, before it begins."""
    edges = closure([edge for phase in stage.phases.values() for edge in phase.edges], plan.consensus)
    read = {edge.source for edge in edges}
    return [name for name in kept(plan) if name in read and all(end.refresh == "once" for end in ends(plan, name))]


def after_line(plan: Plan, line: Publish) -> list[str]:
    """The nodes that speak anew after a line of a program that publishes."""
    return [name for name in kept(plan) if at_line(plan, line, name)]


def after(plan: Plan, refresh: str, agents: Collection[str]) -> list[str]:
    """The nodes that speak anew after some agents have published as this period ends."""
    return [
        name for name in kept(plan) if any(end.refresh == refresh and end.source in agents for end in ends(plan, name))
    ]


def refuse_histories(plan: Plan) -> None:
    """Raise MeshError for the history of a node of which nothing could be kept, or must not."""
    for name in kept_texts(plan):
        if why := _unkept_texts(plan, name):
            what = f"what is chosen for {name} cannot be kept by round: {why}"
            raise MeshError(what, where=plan.at(f"streams.{name}.history"), instead=OUT)
    for name in plan.spec.consensus:
        if plan.spec.consensus[name].history is None:
            continue
        node = plan.consensus.get(name)
        why = "it combines weights" if node is None else _unkept(plan, node)
        if why:
            what = f"what {name} says cannot be kept by round: {why}"
            raise MeshError(what, where=plan.at(f"consensus.{name}.history"), instead=OUT)


def _unkept_texts(plan: Plan, name: str) -> str:
    """The same of a stream of texts."""
    stream = plan.spec.streams[name]
    if stream.consensus_of is None:
        return "no rule makes it of several streams"
    if stream.refresh not in ("once", "epoch", "round"):
        return f"it is written anew each {stream.refresh}, to a few prompts at a time, and there are no rounds"
    if {name, stream.prompts} & private_streams(plan.spec):
        return f"the prompts of {stream.prompts!r} are private, and what is said to them leaves no trace"
    lessons = [
        f"{stage.name}, {phase.name}"
        for stage in plan.stages
        for phase in stage.phases.values()
        if any(name in (edge.stream, *written_before(plan.spec, edge.stream)) for edge in phase.edges)
    ]
    if not lessons:
        return "nobody learns it, nor what is made of it, so that it is not written while anyone trains"
    if stream.refresh != "once" and len(lessons) > 1:
        return f"it is written anew for each of several lessons ({'; '.join(lessons)}), each with rounds of its own"
    return ""


def _unkept(plan: Plan, node: ConsensusNode) -> str:
    """Why there is nothing to keep of a consensus; "" where there is."""
    if node.unaligned:
        return "its rows are of no samples"
    if node.space not in SPACES:
        return f"in space {node.space} it weighs losses, and says nothing of samples"
    if node.per_target:
        return "it says something else to each reader"
    if plan.task.outputs == "vocabulary":
        return "for each token it has a number for every word"
    if node.stream in private_streams(plan.spec):
        return f"stream {node.stream!r} is private, and what is said on it leaves no trace"
    stream = plan.spec.streams.get(node.stream)
    if stream is not None and stream.shards is not None:
        return f"its sources see different samples of {node.stream!r}"
    for end in ends(plan, node.name):
        if end.live or end.stale in ("snapshot", "recorded"):
            return f"{end.source} answers each batch anew (`refresh: {end.refresh}`), and there are no rounds"
    return ""
