"""Filters of the texts that agents write: which of them a mesh cannot have, and which agents they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.nodes import labelled
from kdmesh.graph.served import is_served
from kdmesh.spec import FilterRef, SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.graph.plan import Plan
    from kdmesh.offers import FilterOffer
    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec, StreamSpec, TextRuleRef

OUT, PAIRS = "leave it out", "pairs"


def keys(refs: list[FilterRef] | None) -> list[str]:
    """The filters of a stream by the names under which they are counted: a second `length` is `length 2`."""
    names = [ref.name for ref in refs or ()]
    return [f"{name} {names[:at].count(name) + 1}" if name in names[:at] else name for at, name in enumerate(names)]


def informants(spec: MeshSpec) -> Iterator[tuple[str, str, str]]:
    """The agents that filters read: each with the agent that writes the texts, and the place of the filter."""
    for name, stream in spec.streams.items():
        for field, ref in stream.filters.items():
            for agent in ref.agents if stream.generated_by is not None else ():
                if agent != stream.generated_by:
                    yield agent, str(stream.generated_by), f"streams.{name}.{field}"


def refuse_filters(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for a filter that is not offered, has wrong settings, or cannot say anything here."""
    for name, stream in plan.spec.streams.items():
        for field, ref in stream.filters.items():
            where = plan.at(f"streams.{name}.{field}")
            if stream.prompts is None:
                what = "filters are of texts that an agent writes, and this stream has no prompts to answer"
                raise MeshError(what, where=plan.at(f"streams.{name}.{field.partition('.')[0]}"), instead=OUT)
            if field == PAIRS and stream.consensus_of is None:
                _several(plan, name, stream, "pairs", where)
            if not ref.is_import:
                offer: FilterOffer = registry.find("filters", ref.name, where)
                registry.check("filters", ref.name, ref.settings, where)
                _of(plan, name, stream, ref, offer, f"{where}.{ref.name}.of")
                if "loss" in offer.needs:
                    _served(plan, registry, stream, ref, f"{where}.{ref.name}.of")
                _known(plan, name, ref, registry, where)
                _drops_rejected(plan, name, ref, registry, where)
                if "reward" in offer.needs and stream.reward is None:
                    what = f"filter {ref.name!r} asks how right each text is, and nothing says so on {name!r}"
                    raise MeshError(what, where=where, instead=f"streams.{name}.reward: numeric_answer, or a function")
                if offer.several:
                    _several(plan, name, stream, ref.name, where)


def _of(plan: Plan, name: str, stream: StreamSpec, ref: FilterRef, offer: FilterOffer, where: str) -> None:
    """The agents that are read stand still, or write: what they say must not depend on who is first."""
    if ref.agents and not {"loss", "answers"} & {*offer.needs}:
        raise MeshError(f"filter {ref.name!r} reads no agent's loss, so `of` has no effect", where=where, instead=OUT)
    for agent in ref.agents:
        if agent not in plan.spec.agents:
            instead = nearest(agent, plan.spec.agents, "agents")
            raise MeshError(f"unknown agent {agent!r}", where=where, instead=instead)
    assert stream.generated_by is not None
    if "answers" in offer.needs:
        _classes(plan, name, ref, where)
        settings = offer.config.model_validate(ref.settings)
        unfit: dict[str, str] = getattr(settings, "unfit", lambda agents: {})(len(ref.agents))
        for setting, instead in unfit.items():
            what = f"`{setting}` of {ref.name} does not fit {len(ref.agents)} agents"
            raise MeshError(what, where=f"{where.removesuffix('of')}{setting}", instead=instead)
    elif len(ref.agents) > 1:
        raise MeshError(f"filter {ref.name!r} reads the loss of one agent", where=where, instead=ref.agents[0])
    else:
        for agent in ref.agents:
            if plan.owner[agent] in plan.trainable and plan.owner[agent] != plan.owner[stream.generated_by]:
                what = f"{agent} trains, and what it finds likely would depend on when it is asked"
                instead = f"a frozen agent, or {stream.generated_by}, which writes the texts"
                raise MeshError(what, where=where, instead=instead)


def _served(plan: Plan, registry: Registry, stream: StreamSpec, ref: FilterRef, where: str) -> None:
    """A model behind an endpoint lists its likeliest tokens, in its own, without the one that ends a text."""
    agent = ref.agents[0] if ref.agents else str(stream.generated_by)
    if is_served(plan.spec.agents[plan.owner[agent]].model, registry):
        what = f"filter {ref.name!r} reads how likely texts are to {agent}, and no endpoint says that"
        raise MeshError(what, where=where, instead="of: an agent on this machine that is frozen")


def asks_known(ref: FilterRef | TextRuleRef, registry: Registry) -> str:
    """The setting with which a filter, or a rule over texts, would not ask for the right answer of a prompt; "" where
    it asks for none."""
    if ref.is_import:
        return ""
    kind, given = ("filters", ref.settings) if isinstance(ref, FilterRef) else ("text_rules", ref.config)
    settings = registry.find(kind, ref.name).config.model_validate(given)
    setting: str = getattr(settings, "known", lambda: "")()
    return setting


def _known(plan: Plan, name: str, ref: FilterRef, registry: Registry, where: str) -> None:
    """Where texts are not what the data answer, the right answer is the class of the prompt's sample."""
    setting = asks_known(ref, registry) if plan.language_models else ""
    if not setting or (plan.task.labels == "classes" and labelled(plan.spec, name)):
        return
    what = f"filter {ref.name!r} compares with the class of a text, and "
    what += f"{name!r} hides it" if plan.task.labels == "classes" else f"task {plan.task.name} has none"
    raise MeshError(what, where=where, instead=f"{setting}: COLUMN, the data's column of what a text must say")


def _drops_rejected(plan: Plan, name: str, ref: FilterRef, registry: Registry, where: str) -> None:
    """Filters are asked about both texts of a pair: one that drops what the stream's rule rejects drops all pairs."""
    stream = plan.spec.streams[name]
    if stream.pairs is not True or stream.rule is None:
        return
    rule = stream.rule
    asked = registry.check("filters", ref.name, ref.settings, where)
    own = registry.check("text_rules", rule.name, rule.config, plan.at(f"streams.{name}.rule"))
    if getattr(asked, "as_strict_as", lambda other: False)(own):
        what = f"rule {rule.name!r} rejects what is wrong, and filter {ref.name!r} drops it: no pair would be left"
        raise MeshError(what, where=where, instead=OUT)


def _classes(plan: Plan, name: str, ref: FilterRef, where: str) -> None:
    """Agents that classify what is written have finished before whoever learns it begins."""
    task = plan.task
    if task.outputs != "labels" or task.labels != "classes" or task.rows != "samples":
        what = f"filter {ref.name!r} reads which class agents give a text, and task {task.name} gives none"
        raise MeshError(what, where=where.removesuffix(".of"), instead="task: classification, or leave it out")
    if not labelled(plan.spec, name):
        what = f"filter {ref.name!r} compares with the labels of what is written, and {name!r} hides them"
        instead = "a labelled stream of prompts, `label: COLUMN`, or a consensus of the same agents on this stream"
        raise MeshError(what, where=where.removesuffix(".of"), instead=instead)
    if not ref.agents:
        what = f"filter {ref.name!r} reads which class agents give a text, and names none"
        raise MeshError(what, where=where.removesuffix(".of"), instead=f"{ref.name}: {{of: [AGENT, OTHER]}}")
    for agent in ref.agents:
        if agent in plan.language_models:
            what = f"{agent} only writes texts, and gives none a class"
            raise MeshError(what, where=where, instead="agents that learn the mesh's task")
        for edge in plan.edges:
            stage = plan.stage_of(edge.target) if edge.stream == name and edge.target in plan.owner else None
            if stage is not None and plan.owner[agent] in stage.weights:
                what = f"{agent} trains beside {edge.target}, and its answers would depend on when it is asked"
                raise MeshError(what, where=where, instead="agents that are frozen, or that are trained before")


def _several(plan: Plan, name: str, stream: StreamSpec, which: str, where: str) -> None:
    """A filter that compares the texts of a prompt sees all of them at once."""
    draws = (stream.sampling or SamplingSpec()).samples
    if draws == 1:
        what = f"filter {which!r} compares the texts of a prompt, and one is written to each"
        instead = f"streams.{name}.sampling.samples: 4; or, of several streams' texts, a stream that a vote makes: "
        raise MeshError(what, where=where, instead=f"{instead}{{consensus_of: [{name}, OTHER], rule: vote}}")
    if stream.refresh in ("once", "round", "epoch"):
        return
    for edge in plan.edges:
        size = plan.train(edge.target).batch_size if edge.stream == name and edge.target in plan.owner else draws
        if size % draws:
            what = f"filter {which!r} compares the {draws} texts of a prompt, and batches of {size} divide them"
            raise MeshError(what, where=where, instead=f"batch_size: {max(1, size // draws) * draws}")
