"""Streams that a rule makes of several streams of texts: where they are made, and what of them cannot be run.

Such a stream is made on the host of the agent that writes the first of them, in the tokens of that agent: the long form
says so (`generated_by`), with the prompts and the period, which follow from the streams that it is made of.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.sources import written_before
from kdmesh.spec import MeshSpec, MetricRef, SamplingSpec, StreamSpec
from kdmesh.spec.data import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry

ONCE = "once"
OUT = "leave it out"


def filled(spec: MeshSpec) -> MeshSpec:
    """The mesh with what follows for each such stream written out. MeshError for one that is made of none."""
    if all(one.consensus_of is None for one in spec.streams.values()):
        return spec
    found = dict(spec.streams)
    for name in spec.streams:
        _fill(found, name, ())
    return spec.model_copy(update={"streams": found})


def _fill(streams: dict[str, StreamSpec], name: str, path: tuple[str, ...]) -> None:
    stream = streams[name]
    if stream.consensus_of is None:
        return
    if name in path:
        circle = " -> ".join([*path[path.index(name) :], name])
        where = f"streams.{name}.consensus_of"
        raise MeshError(
            f"streams are derived from each other in a cycle: {circle}", where=where, instead="streams before it"
        )
    sources = []
    for number, other in enumerate(stream.consensus_of):
        where = f"streams.{name}.consensus_of.{number}"
        if other not in streams and other not in SPLITS:
            raise MeshError(f"unknown stream {other!r}", where=where, instead=nearest(other, streams, "streams"))
        if other in streams:
            _fill(streams, other, (*path, name))
        if other not in streams or streams[other].prompts is None or streams[other].generated_by is None:
            what = f"no agent writes texts on {other!r}"
            raise MeshError(what, where=where, instead="streams with `generated_by` and `prompts`")
        sources.append(streams[other])
    periods = [one.refresh or "step" for one in sources]
    given = {
        "generated_by": sources[0].generated_by,
        "prompts": sources[0].prompts,
        "refresh": next((one for one in periods if one != ONCE), ONCE),
    }
    for field, value in given.items():
        own = getattr(stream, field)
        if own is not None and own != value:
            what = f"it is made of {', '.join(stream.consensus_of)}, so that its `{field}` is {value}"
            raise MeshError(what, where=f"streams.{name}.{field}", instead=OUT)
    streams[name] = stream.model_copy(update=given)


def sources(spec: MeshSpec, name: str) -> list[str]:
    """The streams whose texts a written stream has: those that it is made of, or itself."""
    return spec.streams[name].consensus_of or [name]


def longest(spec: MeshSpec, name: str) -> int:
    """How many tokens a text of a written stream has at most, in those of who wrote it."""
    stream = spec.streams[name]
    if stream.consensus_of is None:
        return (stream.sampling or SamplingSpec()).max_new_tokens
    return max(longest(spec, other) for other in stream.consensus_of)


def draws(stream: StreamSpec) -> int:
    """How many texts of a prompt a written stream has."""
    return (stream.sampling or SamplingSpec()).samples


def refuse_agreed(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for what of such a stream cannot be, or does nothing."""
    for name, stream in plan.spec.streams.items():
        where = plan.at(f"streams.{name}")
        if stream.consensus_of is None:
            if stream.rule is not None:
                what = "a rule makes one text of several streams', and this stream is made of none"
                raise MeshError(what, where=f"{where}.rule", instead=f"consensus_of: [FIRST, SECOND], or {OUT}")
            continue
        for field in ("template", "sampling"):
            if getattr(stream, field) is not None:
                what = f"nobody is asked anything for a stream that is made of others, so `{field}` has no effect"
                raise MeshError(what, where=f"{where}.{field}", instead=OUT)
        if stream.rule is None:
            raise MeshError("nothing says how one text is made of several", where=where, instead="rule: vote")
        at = partial(_at, plan, name)
        _rule(stream, registry, at("rule"))
        _pairs(stream, registry, at)
        if len(set(stream.consensus_of)) < len(stream.consensus_of):
            raise MeshError("a stream is named twice", where=at("consensus_of"), instead="each once")
        if len(stream.consensus_of) == 1 and draws(plan.spec.streams[stream.consensus_of[0]]) == 1:
            what = f"{stream.consensus_of[0]!r} has one text of each prompt, so there is nothing to choose from"
            raise MeshError(what, where=at("consensus_of"), instead="several streams, or several `samples`")
        _judged(stream, at)
        for number, other in enumerate(stream.consensus_of):
            refuse_read(plan, name, stream, other, at(f"consensus_of.{number}"))


def refuse_measured(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for a stream that is to be measured and cannot be, or that no metric reads."""
    for name, stream in plan.spec.streams.items():
        where = plan.at(f"streams.{name}.measured")
        if not stream.measured:
            continue
        if stream.prompts is None:
            what = "texts that an agent writes are measured, and this stream has no prompts to answer"
            raise MeshError(what, where=where, instead=OUT)
        if not any("texts" in registry.find("metrics", ref.name).needs for ref in plan.metrics):
            what = "no metric of this mesh is of written texts, so that this has no effect"
            raise MeshError(what, where=where, instead=f"{OUT}, or metrics: [exact_match]")
        private = [key for key, one in plan.spec.streams.items() if one.private]
        if private:
            what = f"what is measured travels between hosts, and {private[0]!r} is private"
            raise MeshError(what, where=where, instead=OUT)


def _at(plan: Plan, name: str, field: str) -> str:
    """Where in the file a field of a stream stands."""
    return plan.at(f"streams.{name}.{field}")


def _rule(stream: StreamSpec, registry: Registry, where: str) -> None:
    assert stream.rule is not None
    rule = stream.rule
    offer = registry.find("text_rules", rule.name, where)
    settings = registry.check("text_rules", rule.name, rule.config, where)
    if stream.reads and not offer.reads:
        what = f"rule {rule.name!r} looks at no further texts, so `reads` has no effect"
        raise MeshError(what, where=where, instead=f"{OUT}, or best_of with `verdict`")
    for field in type(settings).model_fields:
        ref = getattr(settings, field)
        if isinstance(ref, MetricRef):
            at = f"{where}.{rule.name}.{field}"
            registry.check("metrics", ref.name, ref.settings, at)
            if "texts" not in registry.find("metrics", ref.name, at).needs:
                what = f"metric {ref.name!r} is not of written texts, and cannot score one"
                raise MeshError(what, where=at, instead="metric: numeric_answer")


def _judged(stream: StreamSpec, at: Callable[[str], str]) -> None:
    """Texts that are read beside the candidates are of others, each once: a verdict would count twice."""
    seen: dict[str, str] = {}
    for key, other in (stream.reads or {}).items():
        if other in (stream.consensus_of or ()):
            what = f"{other!r} is one of the streams that are chosen from, and would be read as what is said of them"
            raise MeshError(what, where=at(f"reads.{key}"), instead="a stream whose agent reads them, a judge's")
        if other in seen:
            what = f"{other!r} is read as {seen[other]!r} already, and would count twice"
            raise MeshError(what, where=at(f"reads.{key}"), instead="the stream of another judge, or order")
        seen[other] = key


def _pairs(stream: StreamSpec, registry: Registry, at: Callable[[str], str]) -> None:
    """Where a rule says which text is better than which, and where it does not."""
    assert stream.rule is not None
    name, makes = stream.rule.name, registry.find("text_rules", stream.rule.name).pairs
    if not stream.pairs and makes == "only":
        what = f"rule {name!r} says which text is better than which, and one is learned of a stream without pairs"
        raise MeshError(what, where=at("rule"), instead="pairs: true, or best_of")
    if stream.pairs and not makes:
        fit = [one.name for one in registry.offers("text_rules") if one.pairs]
        what = f"rule {name!r} rejects none of the texts, so that there are no pairs"
        raise MeshError(what, where=at("pairs"), instead=f"a rule that does: {', '.join(fit)}")
    if stream.pairs and stream.pairs is not True:
        what = f"rule {name!r} says which of the texts is chosen and which rejected, and no filter is asked"
        raise MeshError(what, where=at("pairs"), instead="pairs: true")
    settings = registry.check("text_rules", name, stream.rule.config, at("rule"))
    idle: dict[str, str] = getattr(settings, "unpaired", dict)() if stream.pairs else {}
    for field, instead in idle.items():
        what = f"`{field}: {getattr(settings, field)}` of rule {name!r} has no effect where it makes pairs"
        raise MeshError(what, where=at(f"rule.{name}.{field}"), instead=instead)
    for field in ("measured", "reward") if stream.pairs else ():
        if getattr(stream, field):
            what = f"these are pairs, of which `{field}` says nothing"
            raise MeshError(what, where=at(field), instead="a stream of the same texts without `pairs`")


def _learned(plan: Plan) -> set[str]:
    """The streams that are learned, and those that are read to write these."""
    learned = {edge.stream for edge in plan.edges}
    return learned.union(*(written_before(plan.spec, name) for name in learned))


def refuse_read(plan: Plan, name: str, stream: StreamSpec, other: str, at: str) -> None:
    """Raise MeshError where the texts of another stream cannot be those that go with the texts of this one."""
    read = plan.spec.streams.get(other)
    if read is None or read.prompts is None or read.generated_by is None:
        what = f"no agent writes texts on {other!r}"
        raise MeshError(what, where=at, instead="a stream with `generated_by` and `prompts`; columns need no `reads`")
    if read.pairs is True:
        what = f"{other!r} has pairs of texts, and {name!r} reads one text"
        raise MeshError(what, where=at, instead="the streams that the pairs are made of")
    if read.prompts != stream.prompts:
        what = f"{other!r} answers the prompts of {read.prompts!r}, and {name!r} those of {stream.prompts!r}"
        raise MeshError(what, where=at, instead="streams with the same prompts")
    if read.mix is not None:
        what = f"given texts are mixed into {other!r}, so that some of its steps have none that were written"
        raise MeshError(what, where=at, instead="a stream without `mix`")
    if read.refresh == ONCE or name not in _learned(plan):  # what is measured alone is written at the end, in one go
        return
    assert stream.generated_by is not None
    own, theirs = stream.refresh or "step", read.refresh or "step"
    updates = [plan.train(agent).accumulate for agent in (stream.generated_by, read.generated_by)]
    if own != theirs or (own != "epoch" and updates[0] != updates[1]):
        what = f"{other!r} is written anew each {theirs}, and {name!r} each {own}, of other lengths"
        raise MeshError(what, where=at, instead="one `refresh` (and `accumulate`) for both; or once for what is read")
    if draws(stream) != draws(read):
        what = f"{other!r} has {draws(read)} texts of a prompt and {name!r} {draws(stream)}, so that their steps differ"
        raise MeshError(what, where=at, instead="as many `samples` in both; or refresh: once for what is read")
