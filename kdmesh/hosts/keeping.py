"""Which of the texts that an agent wrote are learned: filters at work on the writer's host, one after the other.

What trains never says, nearly word for word, what is held out: such texts are dropped by whatever else a mesh asks.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch

from kdmesh.contracts.filter import Filter
from kdmesh.errors import FAULTS, MeshError, RunFailed, text_of
from kdmesh.graph.kept import keys
from kdmesh.graph.reach import readers, sources
from kdmesh.hosts.agreeing import UNPAIRED
from kdmesh.hosts.read_texts import labels_of, read, spoken_by
from kdmesh.imports import maker
from kdmesh.signals.lazy import Lazy, dense
from kdmesh.streams.texts import Texts, Unreadable
from kdmesh.streams.tokens import Encoded
from kdmesh.text.near import Known
from kdmesh.text.prompts import Asking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.hosts.agreeing import Agreed
    from kdmesh.hosts.rollouts import Asked
    from kdmesh.hosts.state import HostState
    from kdmesh.spec import FilterRef
    from kdmesh.streams.tokens import Row
    from kdmesh.text.encoder import Encoder

HELD = ("test", "validation")
REJECTED = "rejected"
"""Why texts are not kept where pairs are made of them: they are the worse of one. Those in none are unpaired."""
CHUNK = 2**24  # logits of losses that are made at a time

Written = list[tuple[list[int], int]]
"""Texts as they are written: the tokens of each, its prompt first, and how many of them are the prompt's."""


class _Step(NamedTuple):
    """One filter: the name it is counted under, what says which texts are kept, its place, whose loss it reads, whose
    answers, and whether it reads rewards."""

    key: str
    filter: Filter
    ref: FilterRef
    where: str
    loss: str = ""
    answers: tuple[str, ...] = ()
    reward: bool = False


def against(why: list[str], places: Sequence[int]) -> list[int]:
    """By text, the place of the one that is rejected in its favour, -1 for others, where a rule made pairs.

    ``why``: why each text is dropped; it then has those that are chosen alone, and a pair is dropped where either text
    is. ``places``: of the texts in whose favour those at the end are rejected.
    """
    count = len(why) - len(places)
    rivals = [-1] * len(why)
    for number, at in enumerate(places, count):
        why[at] = why[at] or (f"{why[number]}, of the {REJECTED}" if why[number] else "")
        rivals[at] = -1 if why[at] else number
    del why[count:]
    return rivals


class Keeping:
    """The filters of one stream. :meth:`sort` says why each text is dropped, "" where it is kept."""

    def __init__(self, host: HostState, stream: str, agent: str) -> None:
        self._host, self._stream, self.agent = host, stream, agent
        spec = host.plan.spec.streams[stream]
        table, own = host.table, host.streams[stream]
        self._said = spoken_by(host, stream, agent)
        assert isinstance(table.x, Texts)
        self._texts = table.x
        self._labels = labels_of(table, spec, stream, own.rows.tolist()) if own.labelled else None
        self._readers = [] if agent not in host.plan.language_models else list(_encoders(host, stream).values())
        self._steps = [
            self._made(key, ref, f"streams.{stream}.keep.{number}")
            for number, (key, ref) in enumerate(zip(keys(spec.keep), spec.keep or (), strict=True))
        ]
        self._judge: _Step | None = None
        if not isinstance(spec.pairs, bool):
            self._judge = self._made(spec.pairs.name, spec.pairs, f"streams.{stream}.pairs")
        self._held: dict[str, Known] | None = None

    def pair(
        self, said: Sequence[WrittenText], why: list[str], asked: Sequence[Asked], texts: Written, rows: int
    ) -> list[int] | None:
        """By text that is chosen, the place of the one that is rejected in its favour, -1 for others; None: no pairs.

        Of the texts of a prompt that no filter dropped the first that the stream's ``pairs`` keeps is chosen, and the
        first that it drops is rejected; where it ranks them, the best and the worst. ``why`` then says of the latter
        that it is `rejected`, and of all others that they are `unpaired`. Otherwise as :meth:`sort`.
        """
        if self._judge is None:
            return None
        left = [at for at, reason in enumerate(why) if not reason]
        scores = self._scores(self._judge, self._given(self._judge, left, said, asked, texts, rows)) if left else []
        rivals, of = [-1] * len(why), dict[int, list[tuple[float, int]]]()
        for at, score in zip(left, scores, strict=True):
            why[at] = UNPAIRED
            if not math.isnan(score):
                of.setdefault(said[at].sample, []).append((score, at))
        for ranked in of.values():
            (best, chosen), (worst, rejected) = max(ranked, key=lambda one: (one[0], -one[1])), min(ranked)
            if best > worst:
                rivals[chosen], why[chosen], why[rejected] = rejected, "", REJECTED
        return rivals

    def _made(self, key: str, ref: FilterRef, where: str) -> _Step:
        host = self._host
        if ref.is_import:
            step = _Step(key, _imported(ref, where), ref, where, reward=True)
        else:
            offer = host.registry.find("filters", ref.name, where)
            try:
                step = _Step(key, offer.make(ref.settings), ref, where, reward="reward" in offer.needs)
                if "loss" in offer.needs:
                    step = step._replace(loss=ref.agents[0] if ref.agents else self.agent)
                elif "answers" in offer.needs:
                    step = step._replace(answers=tuple(ref.agents))
            except FAULTS as error:
                host.registry.attribute_error("filters", ref.name, error, f"to be made for {self._stream!r}", where)
        try:
            step.filter.setup(host.table.columns.keys())
        except MeshError as error:
            error.where = ".".join([where, ref.name, *([error.where] if error.where else [])])
            raise
        except ValueError as error:
            raise MeshError(str(error), where=where, instead="a setting that fits the data") from None
        return step

    def said(
        self, asked: Sequence[Asked], draws: Sequence[int], texts: Written, agreed: Sequence[Agreed] | None = None
    ) -> list[WrittenText]:
        """The texts as filters and verifiers see them; ``agreed``: what a rule made, where one did."""
        if agreed is not None:
            said = [one.text for one in agreed]
        else:
            said = [
                self._said(one.sample, draw, ids[before:])
                for one, draw, (ids, before) in zip(asked, draws, texts, strict=True)
            ]
        return [replace(one, label=self._label(one.sample)) for one in said]

    def sort(
        self,
        said: Sequence[WrittenText],
        asked: Sequence[Asked],
        texts: Written,
        rows: int,
        made: Sequence[str] = (),
    ) -> list[str]:
        """Why each text is dropped, "" where it is kept.

        ``rows``: how many an agent answers at a time, where its loss is read; ``made``: why a rule says nothing, where
        one made them.
        """
        why = [
            reason or self._unread(one) or self._held_out(one)
            for one, reason in zip(said, made or [""] * len(said), strict=True)
        ]
        for step in self._steps:
            left = [at for at, reason in enumerate(why) if not reason]
            if not left:
                break
            found = self._asked(step, self._given(step, left, said, asked, texts, rows))
            for at, kept in zip(left, found, strict=True):
                why[at] = "" if kept else step.key
        return why

    def _given(
        self,
        step: _Step,
        left: Sequence[int],
        said: Sequence[WrittenText],
        asked: Sequence[Asked],
        texts: Written,
        rows: int,
    ) -> list[WrittenText]:
        """These texts as a filter sees them."""
        given = [said[at] if step.reward else replace(said[at], reward=None) for at in left]
        if step.loss:
            losses = self._losses(step.loss, [texts[at] for at in left], [asked[at] for at in left], rows)
            given = [replace(one, loss=loss) for one, loss in zip(given, losses, strict=True)]
        if step.answers:
            every = {name: self._classes(name, given) for name in step.answers}
            given = [
                replace(one, answers={name: own[at] for name, own in every.items()}) for at, one in enumerate(given)
            ]
        return given

    def _label(self, sample: int) -> str:
        """The class of what is written to a sample, by its name; "" where it has none."""
        if self._labels is None or self._labels.dim() != 1 or self._labels.is_floating_point():
            return ""
        return self._named(int(self._labels[sample]))

    def _named(self, number: int) -> str:
        names = self._host.table.labels
        return names[number] if names else str(number)

    def _unread(self, one: WrittenText) -> str:
        """Why a text is dropped that some agent which answers for it as a whole cannot read; "" where all can."""
        for encoder in self._readers:
            sample = read(one.text, f"what {self.agent} wrote to {one.at}")
            try:
                report = encoder.encode(Texts([sample]))[1]
            except Unreadable:
                return "unreadable"
            if report.dropped:
                return "too long"
        return ""

    def _classes(self, agent: str, texts: Sequence[WrittenText]) -> list[str]:
        """The class that an agent gives each text, by its name."""
        one, encoder = self._host.agents[agent], self._host.reading.encoder(agent)
        encoded = encoder.encode(Texts([read(each.text) for each in texts]))[0].to(one.device)
        size, known = self._host.forward_size(agent), self._host.plan.spec.agents[agent].labels
        self._host.threads(one.weights.settings.threads)
        training = one.module.training
        one.weights.train(False)
        try:
            logits = dense(one.inference(encoded, size)[0])
        finally:
            if training:
                one.weights.train()
        found = self._host.plan.answers.decide(logits)
        assert found is not None  # the plan has seen that the task gives classes
        return [self._named(number if known is None else known[number]) for number in found.tolist()]

    def _losses(self, agent: str, texts: Written, asked: Sequence[Asked], rows: int) -> list[float]:
        """Of each text by an agent: the writer as it was asked, another as it sees the data's prompt."""
        seen = texts
        if agent != self.agent:
            view = self._host.plan.spec.agents[agent].view.prompt
            prompt = Asking(self._host.reading.encoder(agent), self._host.table, view, agent)
            own = [prompt(each.sample) for each in asked]
            seen = [(one + ids[before:], len(one)) for one, (ids, before) in zip(own, texts, strict=True)]
        return losses_of(self._host, agent, seen, rows)

    def _asked(self, step: _Step, texts: list[WrittenText]) -> list[bool]:
        """What a filter says, checked; where it raises, of which text."""
        try:
            found = step.filter.keep(texts)
            if not isinstance(found, list | tuple) or len(found) != len(texts):
                raise ValueError(f"it gave {type(found).__name__} for {len(texts)} texts, not a bool for each")
            if wrong := next((one for one in found if not isinstance(one, bool)), None):
                raise ValueError(f"it gave {wrong!r:.40}, which is no bool")
            return list(found)
        except FAULTS as error:
            self._blame(step, error, self._blamed(step, texts))

    def _blame(self, step: _Step, error: BaseException, about: str) -> NoReturn:
        doing = f"on what {self.agent} wrote for {self._stream!r}{about}"
        if not step.ref.is_import:
            self._host.registry.attribute_error("filters", step.ref.name, error, doing, step.where)
        if isinstance(error, MeshError):
            raise error
        raise RunFailed(
            f"{step.ref.name} failed {doing}: {text_of(error)}", where=step.where, instead="mend it, or leave it out"
        ) from error

    def _scores(self, step: _Step, texts: list[WrittenText]) -> list[float]:
        """How good each of these texts is, by a filter that ranks them, or else keeps some of them, checked."""
        try:
            found = step.filter.scores(texts)
            if found is not None and (not isinstance(found, list | tuple) or len(found) != len(texts)):
                raise ValueError(
                    f"its `scores` gave {type(found).__name__} for {len(texts)} texts, not a number for each"
                )
            if wrong := [one for one in found or () if isinstance(one, bool) or not isinstance(one, int | float)]:
                raise ValueError(f"its `scores` gave {wrong[0]!r:.40}, which is no number")
        except FAULTS as error:
            self._blame(step, error, "")
        return [float(one) for one in (self._asked(step, texts) if found is None else found)]

    def _blamed(self, step: _Step, texts: list[WrittenText]) -> str:
        """The first text on which a filter fails by itself; "" where each alone is fine."""
        for one in texts:
            try:
                step.filter.keep([one])
            except FAULTS:
                return f" to {one.at}, {one.text!r:.60}"
        return ""

    def _held_out(self, one: WrittenText) -> str:
        """Why a text is dropped that says what is held out; "" where it does not."""
        if self._held is None:
            self._held = self._read()
        for name, known in self._held.items():
            if one.prompt + one.text in known or one.text in known:
                return f"near {name}"
        return ""

    def _read(self) -> dict[str, Known]:
        """What is held out of all that trains, by split: of validation nothing where its own prompts are answered."""
        host, found = self._host, dict[str, Known]()
        own = host.streams[self._stream].every
        for name in HELD:
            stream = host.streams.get(name)
            if stream is None or bool(torch.isin(stream.rows, own).any()):
                continue
            found[name] = Known()
            found[name].update(sample.asks() + sample.answers() for sample in self._texts[stream.rows])
        return found


def _encoders(host: HostState, stream: str) -> dict[str, Encoder]:
    """How those read a stream who answer for its texts as a whole, or are asked about them: each way once."""
    plan, spec = host.plan, host.plan.spec.streams[stream]
    ends = [edge for edge in plan.edges if edge.stream == stream]
    names = [name for edge in ends for name in (*sources(edge, plan.consensus), *readers(edge.target, plan.consensus))]
    names += [name for ref in spec.keep or () for name in ref.agents]
    agents = [name for name in names if name in plan.owner and name not in plan.language_models]
    return {host.reading.key(name): host.reading.encoder(name) for name in dict.fromkeys(agents)}


class _Function(Filter):
    """A function of one's own, asked text by text."""

    def __init__(self, call: Callable[..., Any], settings: dict[str, Any]) -> None:
        self._call, self._settings = call, settings

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """Ask of each."""
        return [self._call(one, **self._settings) for one in texts]


def _imported(ref: FilterRef, where: str) -> Filter:
    """A filter by its import path: a function of a text that gives a bool, or a class of filters."""
    instead = "`def keep(text, ...) -> bool:`, or a class of filters"
    found = maker(ref.name, where, (bool, Filter), "Filter", instead=instead)
    try:
        if isinstance(found, type):
            made = found(**ref.settings)
            assert isinstance(made, Filter)
            return made
        return _Function(found, ref.settings)
    except TypeError as error:
        raise MeshError(f"{ref.name} cannot be made: {error}", where=where, instead="settings that it takes") from None


def losses_of(host: HostState, agent: str, texts: Written, rows: int) -> list[float]:
    """The mean of ``-log p`` over the tokens of each answer, in nats, by an agent here."""
    return [each.mean().item() for each in token_losses(host, agent, texts, rows)]


@torch.no_grad()
def token_losses(host: HostState, agent: str, texts: Written, rows: int, temperature: float = 1.0) -> list[Tensor]:
    """``-log p`` of each token of each answer, in nats, float32 on the CPU, by an agent here at a temperature."""
    from kdmesh.hosts.rollouts import row

    one, encoder = host.agents[agent], host.reading.encoder(agent)
    every: list[Row] = [row(ids, before) for ids, before in texts]
    found: list[Tensor] = []
    for start in range(0, len(every), rows):
        part = Encoded.of(every[start : start + rows], encoder.pad).to(one.device)
        batch = part.batch(torch.arange(len(part), device=one.device))
        value = one.inference(batch, host.forward_size(agent), (), False)[0]
        losses = row_losses(value, batch.targets, temperature)
        found += losses.split(batch.counts.tolist())
    return [each.cpu() for each in found]


def row_losses(value: Tensor | Lazy, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """``-log p`` of each target ``[N]`` float32, a chunk of rows at a time."""
    step = max(1, CHUNK // value.shape[1])
    parts = []
    for start in range(0, len(targets), step):
        end = min(start + step, len(targets))
        logits = value.rows(start, end) if isinstance(value, Lazy) else value[start:end]
        scores = logits.float() if temperature == 1 else logits.float() / temperature
        parts.append(torch.nn.functional.cross_entropy(scores, targets[start:end], reduction="none"))
    return torch.cat(parts)
