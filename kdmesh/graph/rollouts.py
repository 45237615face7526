"""Streams of texts that an agent writes to prompts: what in a file cannot be run, or would do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.edges import LABELS
from kdmesh.graph.language_models import refuse_language_models
from kdmesh.graph.nodes import labelled
from kdmesh.graph.program import Repeat
from kdmesh.graph.reads import refuse_reads
from kdmesh.graph.sources import below, written_before
from kdmesh.graph.written import PERIOD, refuse_reader, refuse_taken, refuse_without_meaning
from kdmesh.spec import SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Collection

    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import StreamSpec

ONCE, ROUND = "once", "round"
ONLY_TEXTS = "prompts: a stream of prompts or chats, or leave it out"


def refuse_rollouts(plan: Plan) -> None:
    """Raise MeshError for the first such thing in the plan."""
    streams = {name: one for name, one in plan.spec.streams.items() if one.prompts is not None}
    for name, one in plan.spec.streams.items():
        for field in ("sampling", "mix", "template", "reads", "reward", "label") if one.prompts is None else ():
            if getattr(one, field) is not None:
                what = f"`{field}` is about texts that are written, and this stream has no prompts to answer"
                raise MeshError(what, where=plan.at(f"streams.{name}.{field}"), instead=ONLY_TEXTS)
    refuse_language_models(plan)
    for name, stream in streams.items():
        where = plan.at(f"streams.{name}")
        _stream(plan, name, stream, where)
        if stream.sampling is not None:
            refuse_sampling(stream.sampling, f"{where}.sampling")
        refuse_reads(plan, name, stream, where)
        _period(plan, name, stream, where)
        _hidden(plan, name, stream, where)
    _views(plan, streams)
    refuse_taken(plan, streams)
    refuse_reader(plan, streams)


def refuse_decoding(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for a decoding that no metric asks for, or that cannot be."""
    how, where = plan.spec.text.decoding, "text.decoding"
    if how is None:
        return
    if not any("texts" in registry.find("metrics", ref.name).needs for ref in plan.metrics):
        what = "no metric of this mesh is of written texts, so that this has no effect"
        raise MeshError(what, where=where, instead="leave it out, or metrics: [rouge_l]")
    refuse_sampling(how, where)
    if how.samples > 1:
        what = "a prompt is answered once where it is measured"
        raise MeshError(what, where=f"{where}.samples", instead="leave it out")


def _stream(plan: Plan, name: str, stream: StreamSpec, where: str) -> None:
    if plan.language_models and ("texts" not in plan.task.data or plan.task.head != "sequence"):
        raise MeshError(
            f"task {plan.task.name} answers for no text as a whole, so that nothing can be learned of what "
            f"{stream.generated_by} writes",
            where=f"{where}.generated_by",
            instead="a task of texts: classification, regression, multi_label or language_modelling",
        )
    _label(plan, stream, where)
    refuse_without_meaning(
        stream, where, "set it on the stream of prompts", "select", "size", "where", "only", "without"
    )
    if stream.of != type(stream).model_fields["of"].default:
        what = f"its samples are answers to the prompts of {stream.prompts!r}, so `of` has no effect"
        raise MeshError(what, where=f"{where}.of", instead="leave it out")
    given = [("prompts", stream.prompts), *([] if stream.mix is None else [("mix.of", stream.mix.of)])]
    for field, first in given:
        for other in (first, *below(plan.spec, first)) if first is not None else ():
            reason = _reason(plan.spec.streams.get(other))
            if reason:
                what = f"its samples would come from {other!r}, which {reason}; that is not run by this version"
                raise MeshError(what, where=f"{where}.{field}", instead="a split, or a plain stream of one")


def _label(plan: Plan, stream: StreamSpec, where: str) -> None:
    """A column of classes has a meaning where texts are classified, and their labels are read."""
    if stream.label is None:
        return
    if not plan.language_models or plan.task.labels != "classes":
        what = f"what is learned of a written text in task {plan.task.name} is no class"
        raise MeshError(what, where=f"{where}.label", instead="leave it out, or task: classification")
    if not stream.labels:
        what = "the labels of this stream are hidden, so that this has no effect"
        raise MeshError(what, where=f"{where}.label", instead="leave it out, or `labels: false`")


def _reason(stream: StreamSpec | None) -> str:
    """Why no prompts or given texts come from a stream; "" where they may."""
    if stream is None:
        return ""
    if stream.generated_by is not None:
        return "is written by an agent itself"
    if stream.replay:
        return "repeats batches"
    if stream.shards is not None:
        return "is divided over agents"
    return "is private" if stream.private else ""


def _views(plan: Plan, written: Collection[str]) -> None:
    """An agent's own prompt stands before what a language model answers, where it teaches or learns."""
    for name, agent in plan.spec.agents.items():
        if agent.view.prompt is None:
            continue
        where = plan.at(f"agents.{name}.view.prompt")
        if plan.task_of(name).outputs != "vocabulary":
            what = f"task {plan.task.name} answers no prompts, so that this has no effect"
            raise MeshError(what, where=where, instead="task: language_modelling, or leave it out")
        reads = any(name in (edge.source, edge.target) for edge in plan.edges)
        if not reads and not any(plan.spec.streams[one].generated_by == name for one in written):
            what = f"{name} teaches nobody, learns from nothing and writes nothing, so that this has no effect"
            raise MeshError(what, where=where, instead="a flow from or to it")


def _hidden(plan: Plan, name: str, stream: StreamSpec, where: str) -> None:
    """Given texts are learned where their stream lets their labels be read."""
    read = any(edge.source == LABELS and edge.stream == name for edge in plan.edges)
    if stream.mix is not None and read and not labelled(plan.spec, stream.mix.of):
        what = f"a flow teaches the texts of {name!r} themselves, and {stream.mix.of!r} hides its own"
        raise MeshError(what, where=f"{where}.mix.of", instead="a labelled stream, or no flow from labels on this one")


def refuse_sampling(how: SamplingSpec, where: str) -> None:
    """Settings of drawing where nothing is drawn; strings that end every text."""
    plain = SamplingSpec()
    for field in ("temperature", "top_p", "top_k") if how.greedy else ():
        if getattr(how, field) != getattr(plain, field):
            what = f"`greedy: true` takes the likeliest token, so `{field}` has no effect"
            raise MeshError(what, where=f"{where}.{field}", instead="leave it out, or greedy: false")
    for field in ("greedy", "top_k"):
        one = how.top_k == 1 if field == "top_k" else how.greedy
        if one and how.samples > 1:
            what = f"all {how.samples} texts of a prompt would be the same, with `{field}: {getattr(how, field)}`"
            raise MeshError(what, where=f"{where}.samples", instead="samples: 1, or texts that are drawn")
    if how.top_k == 1:
        what = "the likeliest token alone is left to draw"
        raise MeshError(what, where=f"{where}.top_k", instead="greedy: true")
    if "" in how.stop:
        raise MeshError("an empty string would end every text", where=f"{where}.stop", instead="leave it out")


def _period(plan: Plan, name: str, stream: StreamSpec, where: str) -> None:
    """When it is written: by weights that stand by then, and not in the middle of an update."""
    assert stream.generated_by is not None
    writer, refresh = plan.owner[stream.generated_by], stream.refresh or "step"
    if refresh == ONCE and stream.mix is not None and stream.mix.gate is not None:
        what = "it is written once, for all steps, and a gate says for each as it comes whether it is written"
        raise MeshError(what, where=f"{where}.mix.gate", instead="share: 0.5; or refresh: step, `N steps` or epoch")
    if refresh not in (ONCE, ROUND) and not PERIOD.fullmatch(refresh):
        instead = "step, `10 steps`, epoch, round, or once"
        raise MeshError(f"{refresh!r} is not a period of a stream of texts", where=f"{where}.refresh", instead=instead)
    also = {name, *(one for one in plan.spec.streams if name in written_before(plan.spec, one))}
    readers = [edge for edge in plan.edges if edge.stream in also and edge.target in plan.owner]
    for edge in readers:
        stage = plan.stage_of(edge.target)
        if refresh == ONCE and writer in plan.trainable and stage is not None and writer in stage.weights:
            raise MeshError(
                f"it is written once, before {edge.target} trains, and {stream.generated_by} trains at the same time",
                where=f"{where}.refresh",
                instead="refresh: step, `N steps` or epoch; or a writer that is frozen or trained before",
            )
        lines = () if stage is None else stage.program.body
        if refresh == ROUND and not (lines and all(isinstance(line, Repeat) for line in lines)):
            raise MeshError(
                f"it is written anew in each round, and {edge.target} trains in " + ("none" if lines else "no stage"),
                where=f"{where}.refresh",
                instead="program: [{of: [...], repeat: N, do: [...]}], or epoch",
            )
        steps, own = plan.train(writer).accumulate, plan.train(edge.target).accumulate
        if refresh not in (ONCE, ROUND, "epoch"):
            steps *= 1 if refresh == "step" else int(refresh.split()[0])
            if steps % own:
                raise MeshError(
                    f"{edge.target} updates after {own} batches, and texts are written for {steps} at a time",
                    where=f"{where}.refresh",
                    instead=f"refresh: {own} steps, or one `accumulate` for all",
                )
        elif own > 1 and refresh == "epoch":
            what = f"{edge.target} accumulates {own} batches, which an epoch might cut apart"
            raise MeshError(what, where=f"{where}.refresh", instead=f"refresh: {own} steps, or accumulate: 1")
