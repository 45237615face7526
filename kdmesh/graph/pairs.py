"""Streams of pairs, of which both answers are read: what on them cannot be run, or would teach something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.edges import LABELS
from kdmesh.offers import OF_TEXTS

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec, StreamSpec

PAIRS = "pairs"
OUT = "leave it out"


def paired(spec: MeshSpec, stream: str) -> bool:
    """Whether both answers of each sample are read on a stream."""
    own = spec.streams.get(stream)
    while own is not None:
        if own.pairs or own.prompts is not None:  # whatever is written has pairs of its own, or none
            return bool(own.pairs)
        own = spec.streams.get(own.of)
    return False


def references(spec: MeshSpec) -> list[str]:
    """The agents with which metrics of pairs compare all others."""
    return [ref.of for ref in spec.metrics if ref.of in spec.agents]


def refuse_pairs(plan: Plan) -> None:
    """Raise MeshError for the first such thing in the plan."""
    for number, ref in enumerate(plan.spec.metrics):
        if ref.of and ref.of not in plan.spec.agents:
            instead = nearest(ref.of, plan.spec.agents, "agents")
            raise MeshError(f"unknown agent {ref.of!r}", where=f"metrics.{number}.{ref.name}.of", instead=instead)
    for name, stream in plan.spec.streams.items():
        if stream.pairs:
            _stream(plan, stream, plan.at(f"streams.{name}"))
        if stream.mix is not None and paired(plan.spec, stream.mix.of):
            what = f"{stream.mix.of!r} has two answers to each prompt, and what is written has one"
            raise MeshError(what, where=plan.at(f"streams.{name}.mix.of"), instead="a stream without `pairs`")
    for edge in plan.edges:
        _edge(plan, edge, paired(plan.spec, edge.stream))


def _stream(plan: Plan, stream: StreamSpec, where: str) -> None:
    if plan.task.outputs != "vocabulary":
        what = f"only language models read two answers to a prompt, and this mesh has task {plan.task.name}"
        raise MeshError(what, where=f"{where}.pairs", instead="task: language_modelling, or leave it out")
    if stream.consensus_of is None and (stream.prompts is None) != (stream.pairs is True):
        written = stream.prompts is not None
        what = "these texts are written, and are no pairs yet" if written else "the data say which answer is chosen"
        instead = "a filter that keeps what is chosen, and drops what is rejected" if written else "pairs: true"
        raise MeshError(what, where=f"{where}.pairs", instead=instead)
    if stream.mix is not None:
        what = f"samples of {stream.mix.of!r}, which are mixed in, are no pairs"
        raise MeshError(what, where=f"{where}.mix", instead=OUT)


def _to_pair(plan: Plan, stream: str) -> str:
    """What makes pairs of a stream."""
    own = plan.spec.streams.get(stream)
    if own is not None and own.consensus_of is not None:
        return f"{plan.at(f'streams.{stream}')}: pairs: true, and a rule that rejects, as best_of"
    if own is not None and own.prompts is not None:
        return f"{plan.at(f'streams.{stream}')}: pairs: {{answer: {{numeric: true}}}}, or another filter"
    return f"streams: {{pairs: {{of: {stream}, pairs: true}}}}, and `stream: pairs` on this flow"


def _edge(plan: Plan, edge: Edge, of_pairs: bool) -> None:
    where, name = f"{edge.where}.objective", edge.objective.name if edge.objective is not None else ""
    if PAIRS in edge.needs and not of_pairs:
        what = f"objective {name!r} compares two answers to a prompt, and samples of {edge.stream!r} have one"
        raise MeshError(what, where=where, instead=_to_pair(plan, edge.stream))
    if not of_pairs:
        return
    if edge.source == LABELS and PAIRS not in edge.needs:
        what = f"objective {name!r} would teach {edge.target} the answers of {edge.stream!r} that are rejected, too"
        raise MeshError(what, where=where, instead="the stream that the pairs are of, which has the chosen answers")
    if "spans" in edge.needs:
        what = f"objective {name!r} compares spans of one text, and samples of {edge.stream!r} have two"
        raise MeshError(what, where=where, instead="an objective that compares token by token (kl ...)")
    if asked := next((need for need in edge.needs if need in OF_TEXTS), ""):
        what = f"objective {name!r} needs the {asked} of each text, and samples of {edge.stream!r} are two"
        raise MeshError(what, where=where, instead="a stream of these texts without `pairs`")
    if edge.part:
        what = f"{edge} compares a part of each answer, which is not told of pairs"
        raise MeshError(what, where=f"{edge.where}.part", instead=OUT)
    for agent in (edge.source, edge.target):
        if agent in plan.spec.agents and plan.spec.agents[agent].view.prompt is not None:
            what = f"{agent} is told a prompt of its own, before pairs, which is not run by this version"
            raise MeshError(what, where=f"agents.{agent}.view.prompt", instead=OUT)
    node = plan.consensus.get(edge.source)
    if PAIRS in edge.needs and node is not None and node.space in ("loss", "gradient"):
        what = f"{node.name} weighs the losses of tokens, and {name!r} has one for a pair"
        raise MeshError(what, where=where, instead="space: probs or logits on the consensus")
