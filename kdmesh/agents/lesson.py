"""A lesson compiled for one host: the step's ops as plain calls, in the planner's order. This is the hot loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.agents import building, facts, guard, ragged
from kdmesh.agents.agent import Value, reseed
from kdmesh.agents.terms import shared_targets
from kdmesh.agents.update import Update
from kdmesh.graph.edges import LABELS, Edge
from kdmesh.graph.steps import Op
from kdmesh.signals import Signal
from kdmesh.signals.lazy import Lazy, Projected, dense
from kdmesh.store import Key
from kdmesh.streams.order import steps_per_epoch
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.agents.feed import Batch, Lane
    from kdmesh.agents.host import Host
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Stage
    from kdmesh.graph.steps import Lesson as LessonPlan

MASK = 2**63 - 1
LOOK = 64  # steps of which the answers in one are looked at
SETTLED = "#settled"  # among what a forward gave: its logits as they are before anyone is updated
STRIDE = 0x9E3779B97F4A7C15  # odd: seeds of successive steps never repeat within 2**63


class Frame:
    """What is known within one step: batches, forwards, consensus."""

    __slots__ = ("batches", "combined", "kept", "signals", "softened", "step", "values")

    def __init__(self, step: int) -> None:
        self.step = step
        self.batches: dict[int, Batch | None] = {}
        self.values: dict[Op, Value] = {}
        self.signals: dict[tuple[Op, str, bool, str], Signal] = {}
        self.softened: dict[tuple[int, float], tuple[Signal, Signal]] = {}  # by the signal's id and the temperature
        self.combined: dict[tuple[str, str | None], Signal | None] = {}
        self.kept: dict[tuple[str, ...], Value] = {}


class Lesson:
    """One step's ops on this host.

    ``ends``: the weights that train, and the step before which each one's budget ends; ``first``: the lesson's first
    step; ``shifts``: by weights, how far the steps on a shard of their own lag behind, where shards differ in size.
    """

    def __init__(
        self, host: Host, stage: Stage, plan: LessonPlan, ends: dict[str, int], first: int, shifts: dict[str, int]
    ) -> None:
        self.host, self.stage, self.plan, self.ends, self.first = host, stage, plan, ends, first
        self.shifts = {agent: shifts.get(owner, 0) for agent, owner in host.plan.owner.items()}
        self.settings = host.plan.train(stage.agents[0]) if stage.agents else host.plan.spec.train
        self.taps = building.taps(host, plan.edges)
        self.recorded = [edge for edge in host.plan.edges if edge.stale == "recorded" and edge.source in host.agents]
        members = [edge for node in host.plan.consensus.values() for edge in node.inputs]
        self.sources = {edge.source for edge in (*plan.edges, *members)}
        self._last = {*ends.values()}
        self.softens = shared_targets(plan.edges, host.objectives)
        self._sent: dict[Op, set[str]] = {}
        self._members: dict[tuple[int, str], Callable[[Frame], Signal | None]] = {}
        self.update = Update(self)
        self.ops: dict[Op, Callable[[Frame], None]] = {}
        for op in plan.ops:
            call = self._compile(op)
            if call is not None:
                self.ops[op] = call
        self.frames: dict[int, Frame] = {}  # steps begun but not complete
        for name in stage.weights:
            if name in host.weights:
                host.weights[name].train(name in ends and host.weights[name].ema is None)

    # -- batches ---------------------------------------------------------------------------------------------------

    def lane(self, agent: str, stream: str) -> Lane:
        """The agent's lane on a stream, on the agent's device."""
        return self.host.feed.lane(stream, agent, self.host.agents[agent].device)

    def batch(self, frame: Frame, lane: Lane) -> Batch | None:
        """The batch of this step, cut once for all agents that share the lane."""
        key = id(lane)
        if key not in frame.batches:
            frame.batches[key] = lane.batch(
                self.position(frame.step, lane), self.settings.batch_size, self.settings.drop_last
            )
        return frame.batches[key]

    def spoken(self, node: ConsensusNode, reader: str) -> Lane:
        """The lane whose rows a consensus has for a reader: the reader's own, or, in other tokens, its members'."""
        lane, who = self.lane(reader, node.stream), facts.speaker(self.host.plan, node.name)
        if not lane.units or self.host.reading.key(who) == self.host.reading.key(reader):
            return lane
        return self.host.feed.lane(node.stream, who, lane.device)

    def labels(self, frame: Frame, node: ConsensusNode, reader: str) -> Tensor | None:
        """The labels of what a consensus says of a reader's batch."""
        batch = self.batch(frame, self.spoken(node, reader))
        return None if batch is None else batch.y

    def facts(
        self, frame: Frame, agent: str, stream: str, needs: tuple[str, ...], source: str
    ) -> dict[str, Tensor | None]:
        """What an objective needs beside the signals; see facts.py."""
        lane = self.lane(agent, stream)
        batch, theirs = self.batch(frame, lane), None
        assert batch is not None
        if "spans" in needs:
            who = facts.speaker(self.host.plan, source)
            theirs = self.batch(frame, self.host.feed.lane(stream, who, lane.device))
        return facts.of_batch(needs, lane, batch, theirs)

    def column(self, frame: Frame, agent: str, node: ConsensusNode) -> Tensor:
        """The numbers of the values that a rule reads, for an agent's batch."""
        lane = self.spoken(node, agent)
        batch = self.batch(frame, lane)
        assert batch is not None
        return self.host.numbers(node, lane)[lane.rows(batch.at)]

    def position(self, step: int, lane: Lane) -> int:
        """The step counted on a lane: owners of shards count their own, so that each visits its samples evenly."""
        return step + self.shifts.get(lane.owner, 0)

    def epoch(self, frame: Frame, agent: str) -> int:
        """The epoch of the lesson's first stream for an agent: of its own shard, if it has one."""
        stream = self.host.streams[self.plan.streams[0]]
        step, member = frame.step, agent
        if stream.shards is not None:
            member = agent if agent in stream.shards else next(iter(stream.shards))
            step += self.shifts.get(member, 0)
        size, drop = self.settings.batch_size, self.settings.drop_last
        return step // steps_per_epoch(len(stream.rows_for(member)), size, drop)

    # -- ops -------------------------------------------------------------------------------------------------------

    def _compile(self, op: Op) -> Callable[[Frame], None] | None:
        """The call of an op, or None where it is not this host's."""
        if op.kind == "u":
            return self.update.compile(op)
        if op.node in self.host.agents:
            return self._forward(op)
        if op.node in self.host.plan.consensus:
            readers = [e.target for e in self.plan.edges if e.source == op.node and e.target in self.host.agents]
            node = self.host.plan.consensus[op.node]
            if not readers or node.space in ("loss", "gradient"):
                return None  # coefficients are made inside the target's update

            def combine(frame: Frame) -> None:
                for reader in readers:
                    self.consensus(frame, node.name, reader)

            return combine
        return None

    def trains(self, agent: str) -> bool:
        """Whether gradient descent moves this agent's weights in this lesson."""
        owner = self.host.plan.owner[agent]
        return owner in self.ends and self.host.weights[owner].ema is None

    def _exits(self, op: Op) -> list[Op]:
        """The forwards that are one: training exits of one set of weights that see the same samples."""
        agents, owner = self.host.agents, self.host.plan.owner

        def like(other: Op) -> bool:
            return (
                other._replace(node=op.node) == op
                and owner.get(other.node) == owner[op.node]
                and agents[other.node].exit is not None
                and agents[other.node].view is None
                and self.lane(other.node, other.stream) is self.lane(op.node, op.stream)
            )

        return [other for other in self.plan.ops if like(other)] if like(op) else [op]

    def _needs_grad(self, op: Op) -> bool:
        """Whether a gradient comes back to a forward: from its own update, or through a flow with `detach: false`."""
        return any(
            edge.stream == op.stream and (edge.target == op.node or (edge.source == op.node and not edge.detach))
            for edge in [*self.plan.edges, *(e for n in self.host.plan.consensus.values() for e in n.inputs)]
        )

    def _is_heard(self, op: Op) -> bool:
        """Whether others read a forward's outputs within the step."""
        edges = [*self.plan.edges, *(edge for node in self.host.plan.consensus.values() for edge in node.inputs)]
        return any(e.live and (e.source, e.stream, e.what) == (op.node, op.stream, "") for e in edges)

    def _forward(self, op: Op) -> Callable[[Frame], None] | None:
        """Forward an agent, and the exits that share its forward."""
        agent = self.host.agents[op.node]
        trains, ema = self.trains(op.node), agent.weights.ema
        train_mode = op.mode == "train" or (op.mode == "" and (trains or (ema is not None and ema.mode == "train")))
        exits = self._exits(op) if train_mode else [op]
        if exits[0] != op:
            return None  # the first exit's forward answers for all
        grad = trains and op.kind == "f" and op.mode != "eval" and any(map(self._needs_grad, exits))
        lane, names = self.lane(op.node, op.stream), self.taps.get((op.node, op.stream), ())
        others = [(self.host.agents[o.node], self.taps.get((o.node, o.stream), ())) for o in exits[1:]]
        seed = mix(self.host.seed, op.node, op.kind, op.stream, self.plan.name)
        fixed, device, see, module = self.host.fixed, agent.device, agent.see, agent.module
        keys = [
            (exit, Key(exit.node, exit.stream, edge.what, "recorded"))
            for exit in exits
            for edge in self.recorded
            if edge.source == exit.node and exit == Op("f", exit.node, _base(self.lane(exit.node, edge.stream)))
        ]
        threads = agent.weights.settings.threads
        heard = self.host.plan.owner[op.node] in self.ends and (bool(keys) or self._is_heard(op))
        forward_now, threads_now, batch_of = agent.forward, self.host.threads, self.batch
        ahead = None if train_mode else ragged.ahead(self, agent, lane, names)

        def compute(x: Tensor) -> Any:
            if grad:
                return forward_now(x, names, others)
            with torch.no_grad():
                return forward_now(x, names, others)

        def forward(frame: Frame) -> None:
            batch = batch_of(frame, lane)
            if batch is None:
                return
            threads_now(threads)
            x = batch.x if agent.view is None else see(batch.x, lane.samples(batch.at), batch.epoch)
            if not train_mode:
                value = agent.still(x, fixed, names) if ahead is None else ahead(frame.step)
            else:
                reseed((seed ^ (frame.step * STRIDE)) & MASK, device)
                if module.training:
                    value = compute(x)
                else:  # a flow asks for `mode: train` of weights that do not train
                    agent.weights.train()
                    value = compute(x)
                    module.eval()
            if heard and not others and isinstance(value[0], Projected):
                value[1][SETTLED] = value[0].settled()  # who reads it later must not see weights that moved on
            if others:
                frame.values.update(zip(exits, value, strict=True))  # type: ignore[arg-type]  # as many as exits
            else:
                frame.values[op] = value
            for exit, key in keys:
                frame.kept[key] = frame.values[exit]

        return forward

    # -- signals ---------------------------------------------------------------------------------------------------

    def fetcher(self, edge: Edge, reader: str) -> Callable[[Frame], Signal | None]:
        """How the reader gets this edge's signal for its batch; nothing comes of a source that was dropped."""
        if edge.source in self.host.dropped:
            return lambda frame: None
        if edge.source == LABELS:
            lane, classes = self.lane(reader, edge.stream), self.host.plan.spec.agents[reader].labels

            def labels(frame: Frame) -> Signal | None:
                batch = self.batch(frame, lane)
                return None if batch is None or batch.y is None else facts.labels(batch.y, classes)

            return labels
        if edge.source in self.host.plan.consensus:
            name = edge.source
            if not edge.detach:
                return lambda frame: self.consensus(frame, name, reader)
            return lambda frame: _detached(self.consensus(frame, name, reader))
        if edge.live:
            return self._live(edge, reader)
        if edge.stale == "snapshot":
            return self._snapshot(edge, reader)
        return self._stored(edge, reader)

    def _live(self, edge: Edge, reader: str) -> Callable[[Frame], Signal | None]:
        usual = Op("f+" if edge.sees == "after" else "f", edge.source, edge.stream)
        asked = usual._replace(mode=edge.mode)  # is drawn only where it differs from the usual one
        op = asked if asked in self.plan.ops else usual
        assert op in self.plan.ops, f"the step has no {op.label(set())} for {edge}"
        what, detach, device, form = edge.what, edge.detach, self.host.agents[reader].device, edge.form
        key = (op, what, detach, str(device))
        source = self.host.agents.get(edge.source)
        moves = source is None or source.device != device

        def live(frame: Frame) -> Signal | None:
            signal = frame.signals.get(key)  # made once for all readers
            if signal is None:
                value = frame.values.get(op)
                if value is None:
                    return None
                tensor: Any = value[1][what] if what else (settled(value)[0] if detach else value[0])
                if detach:
                    tensor = tensor.detach()
                signal = frame.signals[key] = Signal(tensor.to(device) if moves else tensor, form)
            return signal

        return live

    def _snapshot(self, edge: Edge, reader: str) -> Callable[[Frame], Signal | None]:
        lane, what, reading = self.lane(reader, edge.stream), edge.what, self.host.reading
        device, names = self.host.agents[reader].device, self.taps.get((edge.source, edge.stream), ())
        if reading.key(edge.source) != reading.key(reader):
            lane = self.host.feed.lane(edge.stream, edge.source, device)  # the same samples in the source's own tokens

        def snapshot(frame: Frame) -> Signal | None:
            old, batch = self.host.snapshots.get(edge.source), self.batch(frame, lane)
            if old is None or batch is None:
                return None
            key = (edge.source, edge.stream)
            if key not in frame.kept:
                x = old.see(batch.x, lane.samples(batch.at), batch.epoch)
                frame.kept[key] = old.still(x.to(old.device), self.host.fixed, names)
            logits, taps = frame.kept[key]
            return Signal((taps[what] if what else logits).to(device), edge.form)

        return snapshot

    def _stored(self, edge: Edge, reader: str) -> Callable[[Frame], Signal | None]:
        lane, what, store = self.lane(reader, edge.stream), edge.what, self.host.store
        kind = "recorded" if edge.stale == "recorded" else "publish"
        key = Key(edge.source, _base(lane), what, kind)
        form, device = edge.form, self.host.agents[reader].device

        def stored(frame: Frame) -> Signal | None:
            publication, batch = store.get(key), self.batch(frame, lane)
            if publication is None or batch is None:
                return None
            values, present = publication.at(batch.at, device)
            if present is not None and not present.any():
                return None
            return Signal(values, form, None if present is None or present.all() else present.to(values.dtype))

        return stored

    def consensus(self, frame: Frame, name: str, reader: str) -> Signal | None:
        """A consensus for a reader's batch: combined live, or read from the table where all its inputs are stored."""
        consensus = self.host.consensus[name]
        key = (name, consensus.variant(reader))
        if key in frame.combined:
            return frame.combined[key]
        lane = self.spoken(consensus.node, reader)
        batch = self.batch(frame, lane)
        signal: Signal | None = None
        if batch is not None and Op("f", name, consensus.node.stream) in self.plan.ops:
            try:
                column = self.column(frame, reader, consensus.node) if consensus.node.column else None
                signal = consensus.combine(reader, lambda edge: self._member(edge, reader)(frame), batch.y, column)
            except Exception as error:
                self.host.blame_rule(name, error, f"at step {frame.step}")
        elif batch is not None:
            whole = self.host.stored_consensus(name, reader, lane)
            if whole is not None:
                rows = lane.rows(batch.at)
                weights = None if whole.weights is None else whole.weights[rows]
                value = whole.value.take(rows) if isinstance(whole.value, Lazy) else whole.value[rows]
                signal = Signal(value, whole.form, weights)
        frame.combined[key] = signal
        return signal

    def _member(self, edge: Edge, reader: str) -> Callable[[Frame], Signal | None]:
        key = (edge.id, reader)
        if key not in self._members:
            self._members[key] = self.fetcher(edge, reader)
        return self._members[key]

    def sent(self, op: Op) -> set[str]:
        """What of a forward other hosts read: nothing else leaves this one."""
        if op not in self._sent:
            nodes, here = self.host.plan.consensus, self.host.agents

            def abroad(edge: Edge) -> bool:
                return any(map(abroad, nodes[edge.target].readers)) if edge.target in nodes else edge.target not in here

            edges = [*self.plan.edges, *(edge for node in nodes.values() for edge in node.inputs)]
            self._sent[op] = {e.what for e in edges if (e.source, e.stream) == (op.node, op.stream) and abroad(e)}
        return self._sent[op]

    # -- running ---------------------------------------------------------------------------------------------------

    def finish(self, frame: Frame) -> None:
        """After a step's last op: note what recorded flows will read later."""
        for key, value in frame.kept.items():
            if isinstance(key, Key):
                lane = self.lane(key.source, key.stream)
                batch = self.batch(frame, lane)
                at_once = any(e.source == key.source and e.refresh == "step" for e in self.recorded)
                if batch is not None:
                    tensor = dense(value[1][key.what] if key.what else settled(value)[0]).detach()
                    starts = self.host.agents[key.source].starts(lane.x, key.what)
                    self.host.store.record(key, len(lane), batch.at, tensor, at_once, starts)

    def looks(self, step: int) -> bool:
        """Whether the answers of a step are looked at, which costs a pass over them.

        They are in some of the first steps, the last, and every so many between: it depends on the step alone, so that
        a resumed run says what an unbroken one does.
        """
        count = step + 1 - self.first
        return count % LOOK == 0 or step + 1 in self._last or (count < LOOK and count & (count - 1) == 0)

    def odd(self, frame: Frame) -> list[guard.Oddity]:
        """What is odd about the answers in a step that is over."""
        answers = {(op.node, op.stream): settled(value)[0] for op, value in frame.values.items()}
        answers |= {(key[0], key[1]): value[0] for key, value in frame.kept.items()}
        dead = [(*key, guard.DEAD) for key, value in answers.items() if key[0] in self.sources and guard.is_dead(value)]
        agents = {agent: value for (agent, _), value in answers.items()}
        return [*dead, *((name, "", guard.SOFTENED) for name in agents if self.host.softened(name, agents[name]))]


def settled(value: Value) -> Value:
    """What a forward gave, with logits as they were before anyone was updated: for who reads them later."""
    return value[1].get(SETTLED, value[0]), value[1]


def _base(lane: Lane) -> str:
    return lane.stream.base or lane.stream.name


def _detached(signal: Signal | None) -> Signal | None:
    """The same signal, through which no gradient passes."""
    if signal is None or not signal.value.requires_grad:
        return signal
    return Signal(signal.value.detach(), signal.form, signal.weights)
