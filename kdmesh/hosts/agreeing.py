"""Streams that a rule makes of others: of the texts that answer a prompt one is chosen, where the first is written.

A chosen text keeps its tokens; where its writer has other ones, its characters are cut into those of this stream's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from kdmesh.contracts.filter import WrittenText
from kdmesh.contracts.metric import TextMetric
from kdmesh.contracts.text_rule import Candidate, Choice
from kdmesh.errors import FAULTS, MeshError
from kdmesh.graph.agreed import draws
from kdmesh.spec import MetricRef, SamplingSpec
from kdmesh.streams.texts import Texts
from kdmesh.text.prompts import Asking, ends
from kdmesh.text.spoken import Spoken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdmesh.contracts.text_rule import TextRule
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.rollouts import Asked
    from kdmesh.hosts.state import HostState

LONG = "too long"
MISSING = "no text"
"""What is counted of a stream whose own rule abstained, and why there is none where all of them did."""
UNPAIRED, SAME, ALIKE, TOKENLESS = "unpaired", "equal answers", "equal tokens", "no token in one"
"""Why there is no pair: nothing is rejected, or what is chosen says the same, or does in the tokens of its readers, or
one of both has no token in these, not even one that ends it, of which nothing can be learned."""
CUT, EMPTY = "not whole in these tokens", "rejected is empty"
"""What is counted: a text that was cut anew, of which the tokens do not say all; a text of no token, in a pair."""


class Rejected(NamedTuple):
    """The text that is the worse one of a pair: the tokens of its answer, and as filters see it."""

    ids: list[int]
    text: WrittenText


class Agreed(NamedTuple):
    """What a rule made for one prompt: the text, why there is none ("": there is), what is kept of the vote, and, where
    there is a pair, what is rejected."""

    text: WrittenText
    why: str
    told: dict[str, Any]
    counted: list[str]
    rejected: Rejected | None = None


class Source:
    """The texts of another stream as a rule sees them: words, made of the tokens of who wrote them."""

    def __init__(self, host: HostState, name: str, own: str) -> None:
        """``own``: the stream that reads it, which may hide what the data answer."""
        spec = host.plan.spec.streams[name]
        assert spec.generated_by is not None
        self.name, self.agent, self.draws = name, spec.generated_by, draws(spec)
        self._ruled = spec.consensus_of is not None
        self.encoder, stream = host.reading.encoder(self.agent), host.streams[name]
        how, labelled = spec.sampling or SamplingSpec(), stream.labelled and host.streams[own].labelled
        marks = host.plan.spec.text.reasoning
        self._said = Spoken(self.encoder, host.table, int(stream.rows[0]), how, labelled, marks)

    def __call__(self, sample: int, draw: int, answer: Sequence[int]) -> WrittenText:
        """One of its texts."""
        return self._said(sample, draw, answer)

    def missing(self, answer: Sequence[int]) -> bool:
        """Whether it has no text: its own rule abstained. Who writes, and says nothing, has one that is empty."""
        return self._ruled and not answer


class Agreeing:
    """In place of a writer: chooses by the stream's rule. What it chose last stands in :attr:`agreed`."""

    def __init__(self, host: HostState, stream: str, agent: str) -> None:
        self._host, self._stream = host, stream
        self._encoder, table = host.reading.encoder(agent), host.table
        assert isinstance(table.x, Texts)
        spec = host.plan.spec.streams[stream]
        assert spec.rule is not None and spec.consensus_of is not None
        self._ref, self._where = spec.rule, f"streams.{stream}.rule"
        self._remembered, self._pairs = spec.history is not None, spec.pairs is True
        self._prompt = Asking(self._encoder, table, None, agent)
        self._sources = [Source(host, name, stream) for name in spec.consensus_of]
        self._read = {key: Source(host, name, stream) for key, name in (spec.reads or {}).items()}
        self._ends = sorted(ends(self._encoder, table.x[int(host.streams[stream].rows[0])]))
        self._rule, self._score = self._made()
        self.agreed: list[Agreed] = []

    def _made(self) -> tuple[TextRule, Callable[[WrittenText], float | None] | None]:
        host, name, where = self._host, self._ref.name, self._where
        offer = host.registry.find("text_rules", name, where)
        try:
            rule: TextRule = offer.make(self._ref.config)
        except FAULTS as error:
            host.registry.attribute_error("text_rules", name, error, f"to be made for {self._stream!r}", where)
        try:
            texts = [one.name for one in self._sources for _ in range(one.draws)]  # in the trial each has one
            read = [key for key, one in self._read.items() for _ in range(one.draws)]
            rule.setup(host.table.columns.keys(), texts, read)
        except MeshError as error:
            error.where = ".".join([where, name, *([error.where] if error.where else [])])
            raise
        except ValueError as error:
            raise MeshError(str(error), where=where, instead="a setting that fits the mesh") from None
        settings = offer.config.model_validate(self._ref.config)
        ref = getattr(settings, "metric", None) if "score" in offer.needs else None
        return rule, scorer(host, ref, f"{where}.{name}.metric") if isinstance(ref, MetricRef) else None

    def write(self, agent: Agent, asked: Sequence[Asked], rows: int) -> list[tuple[list[int], int]]:
        """Choose for each prompt; what is chosen nowhere is an empty text."""
        found, self.agreed = [], []
        for one in asked:
            prompt, (ids, agreed) = self._prompt(one.sample), self._one(one)
            longest = max(len(ids), 0 if agreed.rejected is None else len(agreed.rejected.ids))
            if len(prompt) + longest > self._encoder.max_length:
                ids, agreed = [], agreed._replace(why=LONG, rejected=None)
            found.append((prompt + ids, len(prompt)))
            self.agreed.append(agreed)
        return found

    def _one(self, asked: Asked) -> tuple[list[int], Agreed]:
        """The tokens of what is chosen for a prompt, and the choice."""
        given, places, missing, first = [], [], [], 0
        for number, source in enumerate(self._sources):
            for draw, ids in enumerate(asked.read[f"consensus_of.{number}"]["ids"]):
                if source.missing(ids):
                    missing.append(f"{MISSING} in {source.name}")
                    continue
                given.append((source, ids, source(asked.sample, draw, ids)))
                places.append(first + draw)
            first += source.draws
        if not given:
            none = self._sources[0](asked.sample, 0, ())
            said: dict[str, Any] = {"said": []} if self._remembered else {}
            return [], Agreed(none, MISSING, {"rule": self._ref.name, **said, "from": None}, missing)
        of, read = len(given) + len(missing), dict[str, list[WrittenText]]()
        for key, source in self._read.items():
            every = list(enumerate(asked.read[f"reads.{key}"]["ids"]))
            read[key] = [source(asked.sample, draw, ids) for draw, ids in every if not source.missing(ids)]
            missing += [f"{MISSING} in {source.name}"] * (len(every) - len(read[key]))
        texts = [
            Candidate(text, source.name, source.agent, None if self._score is None else self._score(text), place, of)
            for (source, _, text), place in zip(given, places, strict=True)
        ]
        choice = self._chosen(texts, read)
        told = {**choice.told, "rule": self._ref.name, **({"said": _said(texts)} if self._remembered else {})}
        counted = [*missing, *choice.counted]
        if choice.chosen is None:
            none = replace(texts[0].text, text="", tokens=0, ended=False, draw=0)
            return [], Agreed(none, choice.why, {**told, "from": None}, counted)
        told["from"] = _who(*given[choice.chosen])
        ids, text = self._taken(*given[choice.chosen], choice.text, counted)
        why, rejected = "", None
        if self._pairs:
            why = choice.why or UNPAIRED
            if choice.rejected is not None:
                other = Rejected(*self._taken(*given[choice.rejected], None, counted))
                told["rejected"] = {**_who(*given[choice.rejected]), "text": other.text.text}
                why = (
                    SAME if other.text.text == text.text
                    else TOKENLESS if not ids or not other.ids
                    else ALIKE if other.ids == ids
                    else ""
                )  # fmt: skip
                rejected = None if why else other
                counted += [EMPTY] * (not why and not other.text.tokens)
        return ids, Agreed(replace(text, draw=0), why, told, counted, rejected)

    def _taken(
        self, source: Source, ids: list[int], text: WrittenText, said: str | None, counted: list[str]
    ) -> tuple[list[int], WrittenText]:
        """A text in the tokens of this stream; ``said``: what stands in its place; ``counted``: to which is added."""
        if said is not None or source.encoder.key != self._encoder.key:
            said, cut = text.text if said is None else said, self._encoder.tokenizer
            ids = list(cut(said, add_special_tokens=False)["input_ids"])
            if "".join(cut.decode(ids, skip_special_tokens=True).split()) != "".join(said.split()):
                counted.append(CUT)
            text = replace(text, text=said, tokens=len(ids))
            ids += self._ends[:1] if text.ended else []
        return ids, text

    def _chosen(self, texts: list[Candidate], read: dict[str, list[WrittenText]]) -> Choice:
        """What the rule says, checked; where it raises, of which prompt."""
        try:
            found = self._rule.choose(texts, read)
            refuse_choice(found, len(texts))
        except FAULTS as error:
            doing = f"on what answers {texts[0].text.at} in {self._stream!r}"
            self._host.registry.attribute_error("text_rules", self._ref.name, error, doing, self._where)
        return found


def _who(source: Source, ids: list[int], text: WrittenText) -> dict[str, Any]:
    """Which text it is."""
    return {"stream": source.name, "agent": source.agent, "draw": text.draw}


def _said(texts: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Who said what, as a history keeps it."""
    return [{"stream": one.stream, "agent": one.agent, "draw": one.text.draw, "text": one.text.text} for one in texts]


def refuse_choice(found: object, texts: int) -> None:
    """Raise ValueError for what is no choice among so many texts."""
    if not isinstance(found, Choice):
        raise ValueError(f"it gave {type(found).__name__}, not a Choice")
    place = found.chosen
    for doing, one in (("chose", place), ("rejected", found.rejected)):
        if one is not None and (isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < texts):
            raise ValueError(f"it {doing} {one!r:.40} among {texts} texts, which are counted from 0")
    if found.rejected is not None and found.rejected == place:
        raise ValueError(f"it rejected text {place}, which it chose")
    if found.text is not None and (place is None or not isinstance(found.text, str)):
        raise ValueError("it gives a text where it abstains, or one that is none")
    if place is None and not (isinstance(found.why, str) and found.why):
        raise ValueError("it abstains without saying why")
    if not all(isinstance(one, str) and one for one in found.counted):
        raise ValueError("what it counts is not named in words")
    try:
        plain = isinstance(found.told, Mapping) and bool(json.dumps(dict(found.told), allow_nan=False))
    except (TypeError, ValueError):
        plain = False
    if not plain:
        raise ValueError("what it keeps beside the text is not plain data by name")


def scorer(host: HostState, ref: MetricRef, where: str) -> Callable[[WrittenText], float | None]:
    """What a metric says of a text, more being better. MeshError for one that is no mean over texts."""
    offer = host.registry.find("metrics", ref.name, where)
    try:
        metric: Any = offer.make(ref.settings)
    except FAULTS as error:
        host.registry.attribute_error("metrics", ref.name, error, "to be made", where)
    if not isinstance(metric, TextMetric):
        what = f"metric {ref.name!r} is no mean over texts, and says nothing of one alone"
        raise MeshError(what, where=where, instead="metric: numeric_answer, or verifier")
    sign = 1 if offer.higher else -1

    def score(text: WrittenText) -> float | None:
        try:
            value = metric.of(text)
            return None if value is None else sign * float(value)
        except FAULTS as error:
            host.registry.attribute_error("metrics", ref.name, error, f"on the text to {text.at}", where)

    return score
