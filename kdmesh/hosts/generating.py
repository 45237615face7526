"""How a language model on its host writes the texts of a stream; :mod:`kdmesh.hosts.rollouts` has who reads them."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from kdmesh.errors import MeshError, RunFailed
from kdmesh.hosts.agreeing import Agreeing
from kdmesh.hosts.gates import OpenOrShut
from kdmesh.hosts.keeping import Keeping, against, token_losses
from kdmesh.hosts.publications import Key
from kdmesh.hosts.rewarding import UNKNOWN, Rewarding
from kdmesh.hosts.rollouts import ONCE, Asked, Rollouts, parts_of
from kdmesh.hosts.spoken import decoded, told
from kdmesh.hosts.step import Line, StepContext, Wrote
from kdmesh.hosts.stored_texts import memory
from kdmesh.hosts.writing import keep
from kdmesh.hosts.written import KIND, STEP
from kdmesh.spec import SamplingSpec
from kdmesh.streams.seeds import mix
from kdmesh.streams.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.graph.steps import Op
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.agreeing import Agreed
    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.preprocessing import Preprocessor
    from kdmesh.hosts.rewarding import Verdict
    from kdmesh.hosts.rollouts import Schedule
    from kdmesh.hosts.state import HostState
    from kdmesh.spec import TrainSpec


class Writing:
    """An agent that answers prompts by generating, as the stream's ``sampling`` says."""

    def __init__(self, host: HostState, stream: str, agent: str) -> None:
        from kdmesh.text.prompts import Asking, ends

        self._host, self._stream = host, stream
        self._finished = host.plan.spec.streams[stream].refresh == ONCE
        self._how = host.plan.spec.streams[stream].sampling or SamplingSpec()
        self._encoder, table = host.reading.encoder(agent), host.table
        assert isinstance(table.x, Texts)
        spec, own = host.plan.spec.streams[stream], host.plan.spec.agents[agent].view.prompt
        where = f"streams.{stream}.template"
        self._prompt = (
            Asking(self._encoder, table, own, agent)
            if spec.template is None
            else Asking(self._encoder, table, spec.template, agent, where)
        )
        self._where, self._texts = where, table.x
        self._ends = ends(self._encoder, table.x[int(host.streams[stream].rows[0])])

    def write(self, agent: Agent, asked: Sequence[Asked], rows: int) -> list[tuple[list[int], int]]:
        """Generate; each text's noise is its own."""
        from kdmesh.text.generate import generate

        prompts = [self._asked(one) for one in asked]
        model: Any = agent.module  # a language model: `check` refuses others
        with agent.precision():
            texts = generate(
                model,
                prompts,
                self._how,
                ends=self._ends,
                pad=self._encoder.pad,
                rows=rows,
                seeds=[one.seed for one in asked],
                decode=lambda ids: str(self._encoder.tokenizer.decode(ids)),
                memory=memory(
                    self._host, agent, self._stream, self._how, self._encoder, self._ends, rows, self._finished
                ),
            )
        return [(prompt + text, len(prompt)) for prompt, text in zip(prompts, texts, strict=True)]

    def _asked(self, one: Asked) -> list[int]:
        if not one.read:
            return self._prompt(one.sample)
        prompt, most = self._prompt.having_read(one.sample, one.read), self._encoder.max_length
        if len(prompt) + self._how.max_new_tokens > most:
            at = self._texts[one.sample].at or f"sample {one.sample}"
            raise MeshError(
                f"{at}: with what it reads its prompt has {len(prompt)} tokens, and with {self._how.max_new_tokens} "
                f"new ones more than the {most} that its agent reads",
                where=self._where,
                instead="a larger text.max_length (and max_length of the model), or shorter texts to read",
            )
        return prompt


class Copied:
    """In place of a model, in the trial: the samples' own texts, as the agent reads them."""

    def __init__(self, reading: Preprocessor) -> None:
        self._reading = reading

    def write(self, agent: Agent, asked: Sequence[Asked], rows: int) -> list[tuple[list[int], int]]:
        """What stands in the data; at least the last token is learned."""
        found = []
        for one in asked:
            tokens = self._reading.encoded(agent.name, torch.tensor([one.sample])).whole()
            ids = tokens.ids[tokens.mask].tolist()
            prompt = int(tokens.units[0]) + 1 if len(tokens.units) else len(ids) - 1
            found.append((ids if len(ids) > 1 else ids * 2, max(1, prompt)))
        return found


class Reads:
    """What the writer of a stream is given of others: their texts, as the tokenizer of each one's writer says them."""

    def __init__(self, inputs: Inputs, op: Op) -> None:
        host, spec = inputs.host, inputs.host.plan.spec
        self._own, self._sizes = (
            inputs.shard(op.node, op.stream),
            (inputs.settings.batch_size, inputs.settings.drop_last),
        )
        self._sources: dict[str, tuple[Rollouts, Any]] = {}
        self._marks = spec.text.reasoning
        self._rule = spec.streams[op.stream].consensus_of is not None
        for field, name in spec.streams[op.stream].made_of.items():
            source, writer = inputs.shard(op.node, name), spec.streams[name].generated_by
            assert isinstance(source, Rollouts) and writer is not None
            key = field if self._rule else field.partition(".")[2]
            self._sources[key] = source, host.reading.encoder(writer).tokenizer

    def __call__(self, step: int, due: Tensor) -> list[dict[str, dict[str, Any]]]:
        """What each text that is written at a step may name, in the order of ``due``, its positions in the stream.

        Where a rule chooses, the tokens of all that answer its prompt, by the field that names their stream.
        """
        found: list[dict[str, dict[str, Any]]] = [{} for _ in due]
        for key, (source, tokenizer) in self._sources.items():
            texts, places = source.answers(), self._places(source, step, due)
            if self._rule:
                given: list[dict[str, Any]] = [{"ids": [texts[at] for at in of]} for of in places]
            else:
                said = [decoded(tokenizer, ids) for ids in texts]
                given = self._told(source, said, places, due)
            for one, text in zip(found, given, strict=True):
                one[key] = text
        return found

    def _places(self, source: Rollouts, step: int, due: Tensor) -> list[list[int]]:
        """For each text that is written, the places of those that answer its prompt; of the same step the one alone."""
        assert isinstance(self._own, Rollouts)
        draws, theirs = self._own.stream.draws, source.stream.draws
        if source.schedule.every is not None:  # written for the same steps, in the same order
            window = [one for one in self._own.schedule.window(step) if not self._own.schedule.is_given(one)]
            return [[at] for one in window for at in source.places(one, *self._sizes)[0].tolist()]
        firsts = [at // draws * theirs for at in due.tolist()]
        return [list(range(first, first + theirs)) for first in firsts]

    def _told(self, source: Rollouts, said: list[str], places: list[list[int]], due: Tensor) -> list[dict[str, Any]]:
        """What a template may name of a stream, for each text that is written."""
        if source.schedule.every is not None:
            return [told(said[at], self._marks) for (at,) in places]
        draws, theirs = self._own.stream.draws, source.stream.draws
        found = []
        for of, at in zip(places, due.tolist(), strict=True):
            one: dict[str, Any] = {"texts": [said[place] for place in of]}
            if theirs in (1, draws):
                one |= told(one["texts"][at % draws % theirs], self._marks)
            found.append(one)
        return found


def version(refresh: str | None, phase: str, step: int) -> tuple[str, int]:
    """Of the producer's weights, as far as noise goes: the phase and the step at which a text was written."""
    return (ONCE, 0) if refresh == ONCE else (phase, step)


def generate_op(inputs: Inputs, op: Op) -> Callable[[StepContext], None] | None:
    """Write a stream of texts where its period begins; None where the agent lives elsewhere."""
    return None if op.node not in inputs.host.agents else _Generation(inputs, op)


class _Sorted(NamedTuple):
    """Texts as they were written, as filters saw them, why each is dropped, what is told of each, and what crosses.

    ``votes``: what a rule made of each; ``verdicts``: how right each is; ``likely``: how likely its tokens were;
    ``rivals``: of pairs. None: nobody asks. Of pairs that a rule made, what is rejected stands after all ``texts`` that
    the steps have; ``samples``: of all.
    """

    texts: list[tuple[list[int], int]]
    samples: Tensor
    said: list[WrittenText]
    why: list[str]
    votes: list[Agreed] | None
    verdicts: list[Verdict] | None
    likely: list[Tensor] | None
    rivals: list[int] | None


class _Generation:
    """The op that writes a stream of texts, in the steps of one phase."""

    def __init__(self, inputs: Inputs, op: Op) -> None:
        host = inputs.host
        self._inputs, self._op, self._host, self._spec = inputs, op, host, host.plan.spec.streams[op.stream]
        self._agent, self._author, source = host.agents[op.node], host.authors[op.stream], inputs.shard(*op[1:3])
        assert isinstance(source, Rollouts)
        self._source, self._schedule, self._stream = source, source.schedule, host.streams[op.stream]
        self._sizes = inputs.settings.batch_size, inputs.settings.drop_last
        self._stamp = Key(op.node, op.stream, STEP, KIND)
        self._rows, self._keeping = host.forward_size(op.node), Keeping(host, op.stream, op.node)
        # A sum of weights at every step would take its time.
        self._often = self._schedule.every is not None and self._spec.refresh not in ("epoch", "round")
        told = self._spec.made_of and isinstance(self._author, Writing | Agreeing)
        self._reads = Reads(inputs, op) if told else None
        self._rule = "" if self._spec.rule is None else self._spec.rule.name
        self._gate = OpenOrShut(inputs, op.node, op.stream, mixes=True) if self._schedule.gated else None
        self._rewarding = Rewarding(host, op.stream, op.node) if self._spec.reward else None
        readers = [edge for edge in host.plan.edges if edge.stream == op.stream]
        self._likely = any("written" in edge.needs for edge in readers)
        how = self._spec.sampling
        self._heat = 1.0 if how is None or how.greedy else how.temperature

    def __call__(self, context: StepContext) -> None:
        """Write, where it is time."""
        op, step, last = self._op, context.step, self._host.publications.get(self._stamp)
        once, begins = self._schedule.every is None, self._schedule.begins(context.step)
        if begins != step:
            if last is None or (not once and int(last.values) != begins):  # type: ignore[arg-type]  # a tensor
                what = f"what {op.node} wrote at step {begins} is not there at step {step}"
                raise RunFailed(what, where=f"streams.{op.stream}")
            return
        given = None
        if self._gate is not None:
            given = [not self._gate.ask(StepContext(one)) for one in self._schedule.window(step)]
            self._schedule.decide(step, given)
        due = self._schedule.due(step, *self._sizes)
        asked = self._asked(step, due)
        found = self._sorted(asked, due, once and last is not None)
        said, why, verdicts = found.said, found.why, found.verdicts
        rewards = None if verdicts is None else [one.total for one in verdicts]
        crosses = given, rewards, found.likely, found.rivals
        kept = [not reason for reason in why] + [False] * (len(found.texts) - len(why))
        value = context.values[op] = parts_of(found.texts, found.samples, kept, *crosses)
        keep(self._host, op, step, value)
        told = said, why, found.votes or repeat(None), verdicts or repeat(None)
        lines = [_line(*one) for one in zip(*told)]  # noqa: B905
        known_weights = "" if self._often or self._rule else self._agent.weights.sha256()
        when = version(self._spec.refresh, self._inputs.lesson, step)
        about = op.stream, op.node, *when, self._agent.weights.updates
        empty = _empty(self._schedule, step, due, why, self._inputs.settings)
        self._inputs.wrote.append(Wrote(*about, known_weights, lines, empty, self._rule))

    def _sorted(self, asked: Sequence[Asked], due: Tensor, there: bool) -> _Sorted:
        """The texts, written now or, where another stage had them written once, ``there`` already, and what is kept."""
        known = self._host.sorted.get(self._op.stream)
        if there and known is not None:
            return known
        rule = isinstance(self._author, Agreeing)
        texts = self._source.written() if there and not rule else self._write(asked)
        draws = [place % self._stream.draws for place in due.tolist()]
        agreed = self._author.agreed if isinstance(self._author, Agreeing) else None
        said = self._keeping.said(asked, draws, texts, agreed)
        verdicts = None if self._rewarding is None else self._rewarding(said)
        if verdicts is not None:
            said = [replace(one, reward=of.total if of.known else None) for one, of in zip(said, verdicts, strict=True)]
        made = [] if agreed is None else [one.why for one in agreed]
        others = {at: one.rejected for at, one in enumerate(agreed or ()) if one.rejected is not None}
        asked = [*asked, *(asked[at] for at in others)]
        texts = [*texts, *((texts[at][0][: texts[at][1]] + one.ids, texts[at][1]) for at, one in others.items())]
        every = [*said, *(one.text for one in others.values())]
        why = self._keeping.sort(every, asked, texts, self._rows, made + [""] * len(others))
        if verdicts is not None:
            why = [reason or ("" if one.known else UNKNOWN) for reason, one in zip(why, verdicts, strict=True)]
        if self._spec.pairs is True:
            rivals: list[int] | None = against(why, [*others])
        else:
            rivals = self._keeping.pair(said, why, asked, texts, self._rows)
        if self._host.config.authors and all(why) and (rivals is not None or (rule and all(made))):
            asked, texts, why, rivals = self._stand_ins(asked[: len(said)], rivals is not None)
        likely = None
        if self._likely:  # before its weights move
            losses = token_losses(self._host, self._op.node, texts, self._rows, self._heat)
            likely = [-one for one in losses]
        votes = None if agreed is None else list(agreed)
        samples = torch.tensor([one.sample for one in asked], dtype=torch.int64)
        found = _Sorted(texts, samples, said, why, votes, verdicts, likely, rivals)
        if self._schedule.every is None:
            self._host.sorted[self._op.stream] = found
        return found

    def _stand_ins(
        self, asked: list[Asked], pairs: bool
    ) -> tuple[list[Asked], list[tuple[list[int], int]], list[str], list[int] | None]:
        """In the trial, where all texts are what the data say, so that judges name none, and none is over another: what
        each sample says, or that over the same without its first token, or twice that. What learns is computed then."""
        copied, count = Copied(self._host.reading).write(self._agent, asked, self._rows), len(asked)
        if not pairs:
            return asked, copied, [""] * count, None
        others = [(ids[:at] + (ids[at + 1 :] or ids[at:] * 2), at) for ids, at in copied]
        return asked * 2, copied + others, [""] * count, [*range(count, 2 * count)] + [-1] * count

    def _asked(self, step: int, due: Tensor) -> list[Asked]:
        """What is to be written at a step, to the samples at positions ``due`` of the stream."""
        about = self._host.seed, KIND, self._op.stream, self._op.node
        known, draws = version(self._spec.refresh, self._inputs.lesson, step), self._stream.draws
        asked = [
            Asked(sample, mix(*about, sample, place % draws, *known))
            for sample, place in zip(self._stream.rows[due].tolist(), due.tolist(), strict=True)
        ]
        if self._reads is None:
            return asked
        return [one._replace(read=more) for one, more in zip(asked, self._reads(step, due), strict=True)]

    def _write(self, asked: Sequence[Asked]) -> list[tuple[list[int], int]]:
        self._host.threads(self._agent.weights.settings.threads)
        training = self._agent.module.training
        self._agent.weights.train(False)
        try:
            return self._author.write(self._agent, asked, self._rows)
        except MeshError as error:
            error.where = error.where or f"streams.{self._op.stream}"
            raise
        finally:
            if training:
                self._agent.weights.train()


def _line(one: WrittenText, dropped: str, agreed: Agreed | None, verdict: Verdict | None) -> Line:
    about = one.sample, one.draw, one.prompt, one.text, one.tokens, one.ended, dropped, one.at, one.label
    line = Line(*about)
    if agreed is not None:
        line = line._replace(told=agreed.told, counted=tuple(agreed.counted))
    if verdict is None:
        return line
    numbers = verdict.numbers if len(verdict.numbers) > 1 else {}
    return line._replace(reward=verdict.total if verdict.known else None, numbers=numbers, late=verdict.late)


def _empty(schedule: Schedule, step: int, due: Tensor, why: list[str], settings: TrainSpec) -> int:
    """How many of the steps that read what was just written have no text that is kept."""
    if not any(why):
        return 0
    kept = [at for at, reason in enumerate(why) if not reason]
    count, start = 0, 0
    left = set(due[kept].tolist()) if schedule.every is None else set(kept)
    for one in schedule.window(step):
        if schedule.is_given(one):
            continue
        at = schedule.at(one, settings.batch_size, settings.drop_last)[0]
        places = at.tolist() if schedule.every is None else range(start, start + len(at))
        start += len(at)
        count += left.isdisjoint(places)
    return count
