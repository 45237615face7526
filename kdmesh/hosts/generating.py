"""How a language model on its host writes the texts of a stream; :mod:`kdmesh.hosts.rollouts` has who reads them."""

from __future__ import annotations

from collections import Counter
from itertools import repeat
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, RunFailed
from kdmesh.hosts.agreeing import Agreeing
from kdmesh.hosts.gates import OpenOrShut
from kdmesh.hosts.keeping import Keeping, token_losses
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
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

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
        import torch

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
    host, spec = inputs.host, inputs.host.plan.spec.streams[op.stream]
    if op.node not in host.agents:
        return None
    agent, author, source = host.agents[op.node], host.authors[op.stream], inputs.shard(op.node, op.stream)
    assert isinstance(source, Rollouts)
    schedule, stream, settings = source.schedule, host.streams[op.stream], inputs.settings
    threads, stamp = agent.weights.settings.threads, Key(op.node, op.stream, STEP, KIND)
    rows, keeping = host.forward_size(op.node), Keeping(host, op.stream, op.node)
    often = schedule.every is not None and spec.refresh not in (
        "epoch",
        "round",
    )  # a sum at every step would take its time
    reads = Reads(inputs, op) if spec.made_of and isinstance(author, Writing | Agreeing) else None
    gate = OpenOrShut(inputs, op.node, op.stream, mixes=True) if schedule.gated else None
    rewarding = Rewarding(host, op.stream, op.node) if spec.reward else None
    asks = any("written" in edge.needs for edge in host.plan.edges if edge.stream == op.stream)
    heat = 1.0 if spec.sampling is None or spec.sampling.greedy else spec.sampling.temperature

    def write(context: StepContext) -> None:
        begins, last = schedule.begins(context.step), host.publications.get(stamp)
        if schedule.every is None and last is not None:
            return
        if begins != context.step:
            if last is None or int(last.values) != begins:  # type: ignore[arg-type]  # a tensor
                what = f"what {op.node} wrote at step {begins} is not there at step {context.step}"
                raise RunFailed(what, where=f"streams.{op.stream}")
            return
        given = None if gate is None else [not gate.ask(StepContext(one)) for one in schedule.window(context.step)]
        if given is not None:
            schedule.decide(context.step, given)
        due = schedule.due(context.step, settings.batch_size, settings.drop_last)
        samples = stream.rows[due]
        known = version(spec.refresh, inputs.lesson, context.step)
        asked = [
            Asked(sample, mix(host.seed, KIND, op.stream, op.node, sample, place % stream.draws, *known))
            for sample, place in zip(samples.tolist(), due.tolist(), strict=True)
        ]
        if reads is not None:
            asked = [one._replace(read=more) for one, more in zip(asked, reads(context.step, due), strict=True)]
        host.threads(threads)
        training = agent.module.training
        agent.weights.train(False)
        try:
            texts = author.write(agent, asked, rows)
        except MeshError as error:
            error.where = error.where or f"streams.{op.stream}"
            raise
        finally:
            if training:
                agent.weights.train()
        draws = [place % stream.draws for place in due.tolist()]
        agreed = author.agreed if isinstance(author, Agreeing) else None
        said = keeping.said(asked, draws, texts, agreed)
        judged = None if rewarding is None else rewarding(said)
        why = keeping.sort(said, asked, texts, rows, [] if agreed is None else [one.why for one in agreed])
        if judged is not None:
            why = [reason or ("" if one.known else UNKNOWN) for reason, one in zip(why, judged, strict=True)]
        # before its weights move
        likely = [-one for one in token_losses(host, op.node, texts, rows, heat)] if asks else None
        rewards = None if judged is None else [one.total for one in judged]
        rivals = keeping.pair(said, why, asked, texts, rows)
        kept = [not reason for reason in why]
        value = context.values[op] = parts_of(texts, samples, kept, given, rewards, likely, rivals)
        keep(host, op, context.step, value)
        empty = _empty(schedule, context.step, due, why, settings)
        lines = [_line(*one) for one in zip(said, why, agreed or repeat(None), judged or repeat(None))]  # noqa: B905
        known_weights = "" if often or agreed is not None else agent.weights.sha256()
        about = op.stream, op.node, inputs.lesson, context.step, agent.weights.updates
        rule = "" if spec.rule is None else spec.rule.name
        inputs.wrote.append(Wrote(*about, known_weights, lines, empty, rule))
        if schedule.every is None and lines and all(why) and not host.config.authors:
            refuse_all_dropped(op.stream, op.node, Counter(why), rule)

    return write


def _line(one: WrittenText, dropped: str, agreed: Agreed | None, verdict: Verdict | None) -> Line:
    line = Line(one.sample, one.draw, one.prompt, one.text, one.tokens, one.ended, dropped, one.at)
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


def refuse_all_dropped(stream: str, agent: str, why: Mapping[str, int], rule: str = "") -> NoReturn:
    """Raise RunFailed for a stream of which nothing is learned: ``why``: how many texts were dropped, by reason.

    ``rule``: by which it is made of others, "" where ``agent`` wrote it.
    """
    said = ", ".join(f"{reason} {count}" for reason, count in sorted(why.items()))
    if rule:
        raise RunFailed(
            f"none of {sum(why.values())} prompts has a text that rule {rule!r} chose and that is kept ({said}), so "
            "nothing is learned of them",
            where=f"streams.{stream}",
            instead="a rule that abstains less, or streams that answer better",
        )
    raise RunFailed(
        f"none of the {sum(why.values())} texts that {agent} wrote is kept ({said}), so nothing is learned of them",
        where=f"streams.{stream}.keep",
        instead="filters that keep some, other sampling, or a better writer",
    )
