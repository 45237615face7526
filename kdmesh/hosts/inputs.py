"""What the ops of one phase on one host read: batches of shard views, signals of sources, consensus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import FAULTS
from kdmesh.graph.edges import LABELS, Edge
from kdmesh.graph.parties import variant
from kdmesh.graph.private_training import noised
from kdmesh.graph.reach import speaker
from kdmesh.graph.steps import ANSWERS, Op
from kdmesh.hosts import build, guard, rules, side_inputs
from kdmesh.hosts.agent import reseed
from kdmesh.hosts.classes import labels as known_labels
from kdmesh.hosts.consensus import Moment
from kdmesh.hosts.drawn import Drawn, by_chance
from kdmesh.hosts.loader import ShardView
from kdmesh.hosts.publications import Key
from kdmesh.hosts.read_texts import ReadTexts, labels_of, spoken_by
from kdmesh.hosts.rollouts import Rollouts, Schedule, every
from kdmesh.hosts.step import frozen_copy
from kdmesh.hosts.written import Written
from kdmesh.offers import NOW
from kdmesh.signals import Signal
from kdmesh.signals.lazy import taken
from kdmesh.streams.order import steps_per_epoch
from kdmesh.streams.seeds import at_step, mix

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Stage
    from kdmesh.graph.steps import Phase
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.consensus import Consensus
    from kdmesh.hosts.loader import Batch, BatchSource
    from kdmesh.hosts.state import HostState
    from kdmesh.hosts.step import StepContext, Turn, Wrote
    from kdmesh.spec import StreamSpec


class Inputs:
    """One phase on one host, and what its ops read.

    ``ends``: the weights that train, and the step before which each one's budget ends; ``first``: the phase's first
    step; ``shifts``: by weights, how far the steps on a shard of their own lag behind, where shards differ in size;
    ``turn``: where in its rounds it is.
    """

    def __init__(
        self,
        host: HostState,
        stage: Stage,
        plan: Phase,
        ends: dict[str, int],
        first: int,
        shifts: dict[str, int],
        turn: Turn,
    ) -> None:
        self.host, self.stage, self.plan, self.ends, self.first, self.turn = host, stage, plan, ends, first, turn
        self.shifts = {agent: shifts.get(owner, 0) for agent, owner in host.plan.owner.items()}
        self.settings = host.plan.train(stage.agents[0]) if stage.agents else host.plan.spec.train
        self.lesson = next((key for key, phase in stage.phases.items() if phase is plan), "")  # as the driver counts it
        self.taps = build.taps(host, plan.edges)
        self.ahead: dict[Op, Any] = {}  # what answers ahead of steps: see ahead.py
        self._members: dict[tuple[int, str], Callable[[StepContext], Signal | None]] = {}
        self._written: dict[tuple[Any, ...], Written | Rollouts] = {}  # by stream, device, own prompt and tokenizer
        self.wrote: list[Wrote] = []  # texts, since the last report
        self._seeds: dict[tuple[str, str | None], int] = {}  # of what rules draw
        self._drawn: dict[str, Drawn] = {}  # by agent that trains privately

    def shard(self, agent: str, stream: str) -> BatchSource:
        """The agent's shard view of a stream, on the agent's device."""
        if stream in noised(self.host.plan, agent) and self.host.plan.owner[agent] in self.ends:
            return self._by_chance(agent, stream)
        device, spec = self.host.agents[agent].device, self.host.plan.spec.streams.get(stream)
        if spec is None or spec.generated_by is None:
            return self.host.loader.shard(stream, agent, device, told=True)
        return self._writing(spec, stream, agent, device)

    def _by_chance(self, agent: str, stream: str) -> Drawn:
        """A private stream as an agent sees it that trains privately."""
        if agent not in self._drawn:
            where = f"{self.stage.name}, {self.lesson}" + (f", {self.turn.who}" if self.turn.who else "")
            self._drawn[agent] = by_chance(self.host, agent, stream, where, self.settings.batch_size)
        return self._drawn[agent]

    def _writing(self, spec: StreamSpec, stream: str, agent: str, device: torch.device) -> Written | Rollouts:
        """A written stream as an agent, here or elsewhere, sees it; agents that see the same share it."""
        assert spec.generated_by is not None
        agents = self.host.plan.spec.agents
        own = agents[agent].view.prompt if spec.prompts is not None else None
        key = (stream, str(device), own or "", self._reads_words(agent) and self.host.reading.key(agent))
        if key not in self._written:
            given = self.host.publications, self.host.streams[stream], spec.generated_by, device
            self._written[key] = Written(*given) if spec.prompts is None else self._rollouts(stream, agent, device)
        return self._written[key]

    def _reads_words(self, agent: str) -> bool:
        """Whether an agent answers for a written text as a whole, so that it has tokens of its own for it."""
        return bool(self.host.plan.language_models) and agent not in self.host.plan.language_models

    def _rollouts(self, stream: str, agent: str, device: torch.device) -> Rollouts:
        """A stream of texts as an agent reads it: in the writer's tokens, or, where it classifies them, in its own."""
        host, own = self.host, self.host.streams[stream]
        spec, encoder = host.plan.spec.streams[stream], host.reading.encoder(agent)
        assert spec.prompts is not None and spec.generated_by is not None
        last = max(self.ends.values())
        sizes = host.reading.sizes(own.rows[:: own.draws]) if host.plan.spec.text.bucket else None
        together = every(host.plan, stream, host.streams[self.plan.streams[0]], self.settings, last - self.first)
        share, drawn = 0.0 if spec.mix is None else spec.mix.share, (stream, self.lesson)  # None: a gate says
        schedule = Schedule(own, spec.prompts, sizes, host.seed, together, self.first, last, share, drawn)
        pack = encoder.max_length if encoder.pack else None
        given = None if spec.mix is None else host.loader.shard(spec.mix.of, agent, device, told=True)
        if self._reads_words(agent):
            labels = labels_of(host.table, spec, stream, own.rows.tolist()) if own.labelled else None
            read = encoder, spoken_by(host, stream, spec.generated_by), labels, given
            return ReadTexts(host.publications, schedule, spec.generated_by, device, *read)
        views = [host.plan.spec.agents[name].view.prompt for name in (agent, spec.generated_by)]
        prompt = None
        apart = spec.template is not None or spec.consensus_of is not None
        if views[0] != views[1] or apart:  # what the writer alone is asked, nobody else is
            from kdmesh.text.prompts import Asking

            prompt = Asking(encoder, host.table, views[0], agent)
        return Rollouts(host.publications, schedule, spec.generated_by, device, encoder.pad, pack, given, prompt)

    def told_texts(self) -> list[Wrote]:
        """The texts that were written here since the last report."""
        found, self.wrote = self.wrote, []
        return found

    def batch(self, context: StepContext, shard: BatchSource) -> Batch | None:
        """The batch of this step, cut once for all agents that share the shard view."""
        key = id(shard)
        if key not in context.batches:
            context.batches[key] = shard.batch(
                self.position(context.step, shard), self.settings.batch_size, self.settings.drop_last
            )
        return context.batches[key]

    def see(self, context: StepContext, agent: Agent, shard: BatchSource, batch: Batch) -> Any:
        """A batch as an agent sees it: each sample in its view, and then mixed."""
        if agent.view is None and agent.mixing is None:
            return batch.x
        ids = shard.samples(batch.at)
        x = agent.see(batch.x, ids, batch.epoch)
        if agent.mixing is None:
            return x
        stream = shard.stream.name
        draw = at_step(mix("mix", stream, shard.owner, self.plan.name), context.step)
        x, partner, share = agent.mixing(x, ids.to(x.device), draw)
        context.mixes[agent.name, stream] = partner, share
        return x

    def rows_of(self, node: ConsensusNode, reader: str) -> BatchSource:
        """The view whose rows a consensus has for a reader: the reader's own, or, in other tokens, its members'."""
        shard, who = self.shard(reader, node.stream), speaker(node.name, self.host.plan.consensus)
        if not shard.units or self.host.reading.key(who) == self.host.reading.key(reader):
            return shard
        return self.host.loader.shard(node.stream, who, shard.device)

    def given(self, context: StepContext, node: ConsensusNode, reader: str) -> dict[str, Any]:
        """What a rule is given of a reader's batch beside signals."""
        shard = self.rows_of(node, reader)
        batch = self.batch(context, shard)
        assert batch is not None
        now = self.moment(context, reader) if node.timely else None
        self.host.consensus[node.name].note(reader, now)
        return rules.facts(self.host, node, shard, batch.y, rules.published(self.host, node), batch.at, now)

    def facts(
        self, context: StepContext, agent: str, stream: str, needs: tuple[str, ...], source: str
    ) -> dict[str, Any]:
        """What an objective needs beside the signals; see side_inputs.py."""
        shard = self.shard(agent, stream)
        batch, theirs = self.batch(context, shard), None
        assert batch is not None
        if "spans" in needs:
            who = speaker(source, self.host.plan.consensus)
            theirs = self.batch(context, self.host.loader.shard(stream, who, shard.device))
        found: dict[str, Any] = side_inputs.of_batch(needs, shard, batch, theirs)
        found.update((name, self.now(context, agent, name)) for name in NOW if name in needs)
        return found

    def now(self, context: StepContext, agent: str, name: str) -> int | None:
        """How far the training of an agent is: the step or epoch of its phase, from 0, or the round, from 1."""
        if name == "round":
            return self.turn.round
        return context.step if name == "step" else self.epoch(context, agent)

    def moment(self, context: StepContext, agent: str) -> Moment:
        """How far the training of an agent is, for rules that ask."""
        return Moment(context.step, self.epoch(context, agent), self.turn.round)

    def position(self, step: int, shard: BatchSource) -> int:
        """The step counted on a view: owners of shards count their own, so that each visits its samples evenly."""
        return step + self.shifts.get(shard.owner, 0)

    def epoch(self, context: StepContext, agent: str) -> int:
        """The epoch of the phase's first stream for an agent: of its own shard, if it has one."""
        return self.epoch_of(context.step, agent)

    def epoch_of(self, step: int, agent: str) -> int:
        """The same of any step of the phase."""
        stream = self.host.streams[self.plan.streams[0]]
        member = agent
        if stream.shards is not None:
            member = agent if stream.sees(agent) else next(iter(stream.shards))
            step += self.shifts.get(member, 0)
        size, drop = self.settings.batch_size, self.settings.drop_last
        return step // steps_per_epoch(len(stream.rows_for(member)), size, drop)

    # -- signals ---------------------------------------------------------------------------------------------------

    def fetcher(self, edge: Edge, reader: str) -> Callable[[StepContext], Signal | None]:
        """How the reader gets this edge's signal for its batch; nothing comes of a source that was dropped."""
        if edge.source in self.host.dropped:
            return lambda context: None
        if edge.source == LABELS:
            shard, classes = self.shard(reader, edge.stream), self.host.plan.spec.agents[reader].labels

            def labels(context: StepContext) -> Signal | None:
                batch = self.batch(context, shard)
                return None if batch is None or batch.y is None else known_labels(batch.y, classes)

            return labels
        if edge.source in self.host.plan.consensus:
            name = edge.source
            if self.host.plan.away(name, self.host.name):
                return self._sent(edge, reader)
            if not edge.detach:
                return lambda context: self.consensus(context, name, reader)
            return lambda context: _detached(self.consensus(context, name, reader))
        if edge.live:
            return self._live(edge, reader)
        if edge.stale == "snapshot":
            return self._snapshot(edge, reader)
        return self._stored(edge, reader)

    def carrier(self, edge: Edge) -> Op:
        """The op whose value a live edge from an agent carries."""
        usual = Op("f+" if edge.sees == "after" else "f", edge.source, edge.stream)
        moded = usual._replace(mode=edge.mode)  # is drawn only where it differs from the usual one
        op = moded if moded in self.plan.ops else usual
        return op._replace(kind=ANSWERS[op.kind]) if edge.asked else op

    def _live(self, edge: Edge, reader: str) -> Callable[[StepContext], Signal | None]:
        op = self.carrier(edge)
        assert op in self.plan.ops, f"the step has no {op.label(set())} for {edge}"
        output, detach, device, form = edge.output, edge.detach, self.host.agents[reader].device, edge.form
        asked = edge.asked  # of a reader that has no batch nothing was
        key = (op, output, detach, str(device))
        source = self.host.agents.get(edge.source)
        moves = source is None or source.device != device

        def live(context: StepContext) -> Signal | None:
            signal = context.signals.get(key)  # made once for all readers
            if signal is None:
                value = context.values.get(op)
                if value is None or (asked and output not in value[1]):
                    return None
                tensor: Any = value[1][output] if output else (frozen_copy(value)[0] if detach else value[0])
                if detach:
                    tensor = tensor.detach()
                signal = context.signals[key] = Signal(tensor.to(device) if moves else tensor, form)
            return signal

        return live

    def _snapshot(self, edge: Edge, reader: str) -> Callable[[StepContext], Signal | None]:
        shard, output, reading = self.shard(reader, edge.stream), edge.output, self.host.reading
        device, names = self.host.agents[reader].device, self.taps.get((edge.source, edge.stream), ())
        fixed = self.host.forward_size(edge.source)
        written = self.host.plan.spec.streams.get(edge.stream)
        if written is not None and written.prompts is not None:
            shard = self._writing(written, edge.stream, edge.source, device)
        elif reading.told_key(edge.source) != reading.told_key(reader):  # the same samples, as the source reads them
            shard = self.host.loader.shard(edge.stream, edge.source, device, told=True)

        def snapshot(context: StepContext) -> Signal | None:
            old, batch = self.host.snapshots.get(edge.source), self.batch(context, shard)
            if old is None or batch is None:
                return None
            key = (edge.source, edge.stream)
            if key not in context.kept:
                x = self.see(context, old, shard, batch)
                try:
                    context.kept[key] = old.inference(x.to(old.device), fixed, names, not isinstance(shard, Rollouts))
                except FAULTS as error:
                    build.attribute_error(self.host, edge.source, error, f"at step {context.step}, as it was before")
            logits, taps = context.kept[key]
            return Signal((taps[output] if output else logits).to(device), edge.form)

        return snapshot

    def _stored(self, edge: Edge, reader: str) -> Callable[[StepContext], Signal | None]:
        if edge.unaligned:
            device = self.host.agents[reader].device
            return lambda context: rules.statistic(self.host, edge, device)
        kind = "recorded" if edge.stale == "recorded" else "publish"
        return self._published(edge, reader, Key(edge.source, base(self.shard(reader, edge.stream)), edge.output, kind))

    def _sent(self, edge: Edge, reader: str) -> Callable[[StepContext], Signal | None]:
        """What a consensus that is formed on another host has sent."""
        nodes = self.host.plan.consensus
        which = variant(edge.source, reader, nodes)
        if nodes[edge.source].unaligned:
            key, device = Key(edge.source, nodes[edge.source].stream, which), self.host.agents[reader].device
            return lambda context: rules.whole(self.host, key, edge.form, device)
        return self._published(edge, reader, Key(edge.source, base(self.shard(reader, edge.stream)), which))

    def _published(self, edge: Edge, reader: str, key: Key) -> Callable[[StepContext], Signal | None]:
        """The rows of a publication for a reader's batch."""
        shard, found = self.shard(reader, edge.stream), self.host.publications
        form, device = edge.form, self.host.agents[reader].device

        def stored(context: StepContext) -> Signal | None:
            publication, batch = found.get(key), self.batch(context, shard)
            if publication is None or batch is None:
                return None
            values, present = publication.at(batch.at, device)
            if present is not None and not present.any():
                return None
            return Signal(values, form, None if present is None or present.all() else present.to(values.dtype))

        return stored

    def consensus(self, context: StepContext, name: str, reader: str) -> Signal | None:
        """A consensus for a reader's batch: combined live, or read from the table where all its inputs are stored."""
        consensus = self.host.consensus[name]
        key = (name, consensus.variant(reader))
        if key in context.combined:
            return context.combined[key]
        if consensus.node.unaligned:
            now = self.moment(context, reader) if consensus.timely else None
            signal = context.combined[key] = rules.stored(self.host, name, reader, None, now)
            return signal
        shard = self.rows_of(consensus.node, reader)
        batch = self.batch(context, shard)
        signal = None
        if batch is not None and Op("f", name, consensus.node.stream) in self.plan.ops:
            try:
                given = self.given(context, consensus.node, reader)
                if consensus.nested and consensus.draws:  # these draw first, wherever they are asked for
                    consensus.gather(reader, lambda edge: self._member(edge, reader)(context))
                seed = self.draw(context, consensus, reader)
                look = context.step % guard.LOOK == 0
                signal = consensus.combine(reader, lambda edge: self._member(edge, reader)(context), given, seed, look)
            except FAULTS as error:
                rules.attribute_error(self.host, name, error, f"at step {context.step}")
        elif batch is not None and isinstance(shard, ShardView):
            now = self.moment(context, reader) if consensus.timely else None
            whole = rules.stored(self.host, name, reader, shard, now)
            if whole is not None:
                rows = shard.rows(batch.at)
                weights = None if whole.weights is None else whole.weights[rows]
                value = taken(whole.value, rows)
                signal = Signal(value, whole.form, weights)
        context.combined[key] = signal
        return signal

    def draw(self, context: StepContext, consensus: Consensus, reader: str) -> int | None:
        """Seed what a rule draws in this step, whatever else was computed on this host; None if it draws nothing."""
        if not consensus.draws:
            return None
        key = consensus.variant(reader)
        if (consensus.node.name, key) not in self._seeds:
            name, stream = consensus.node.name, consensus.node.stream
            self._seeds[name, key] = mix(self.host.seed, "combine", name, stream, key or "", self.plan.name)
        seed = at_step(self._seeds[consensus.node.name, key], context.step)
        reseed(seed, self.host.agents[reader].device)
        return seed

    def _member(self, edge: Edge, reader: str) -> Callable[[StepContext], Signal | None]:
        key = (edge.id, reader)
        if key not in self._members:
            self._members[key] = self.fetcher(edge, reader)
        return self._members[key]


def base(shard: BatchSource) -> str:
    """The stream whose rows a shard view has."""
    return shard.stream.base or shard.stream.name


def _detached(signal: Signal | None) -> Signal | None:
    """The same signal, through which no gradient passes."""
    if signal is None or not signal.value.requires_grad:
        return signal
    return Signal(signal.value.detach(), signal.form, signal.weights)
