"""A phase compiled for one host: the step's ops as plain calls, in the planner's order. This is the hot loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.graph.reach import readers
from kdmesh.graph.steps import ANSWERS, Op
from kdmesh.hosts import guard, oddities
from kdmesh.hosts.answering import answer_op
from kdmesh.hosts.drawn import Drawn
from kdmesh.hosts.forward import forward_op, refuse_detached, trains
from kdmesh.hosts.generating import generate_op
from kdmesh.hosts.inputs import Inputs
from kdmesh.hosts.loader import ShardView
from kdmesh.hosts.noised import forward_privately
from kdmesh.hosts.publications import Key
from kdmesh.hosts.rollouts import TEXT_PARTS
from kdmesh.hosts.step import frozen_copy
from kdmesh.hosts.update import Update
from kdmesh.hosts.writing import write_op
from kdmesh.hosts.written import PARTS
from kdmesh.signals.lazy import dense

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdmesh.graph.plan import Stage
    from kdmesh.graph.steps import Phase
    from kdmesh.hosts.state import HostState, Purpose
    from kdmesh.hosts.step import StepContext, Turn

LOOK = 64  # steps of which the answers in one are looked at


class CompiledPhase:
    """One step's ops on this host. For ``ends``, ``first``, ``shifts`` and ``turn`` see :class:`Inputs`."""

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
        self.host, self.plan, self._stage = host, plan, stage.name
        self.inputs = Inputs(host, stage, plan, ends, first, shifts, turn)
        self.recorded = [edge for edge in host.plan.edges if edge.stale == "recorded" and edge.source in host.agents]
        members = [edge for node in host.plan.consensus.values() for edge in node.inputs]
        self.sources = {edge.source for edge in (*plan.edges, *members)}
        self._last, self._same = {*ends.values()}, [plan.name, first, dict(ends)]
        self._sent: dict[Op, set[str]] = {}
        self.update = Update(self.inputs)
        self.ops: dict[Op, Callable[[StepContext], None]] = {}
        for op in plan.ops:
            call = self._compile(op)
            if call is not None:
                self.ops[op] = call
        self._all = range(len(self.ops))
        self._numbers = {op: number for number, op in enumerate(self.ops)}
        self._for = [self._purpose(op) for op in self.ops]
        self.contexts: dict[int, StepContext] = {}  # steps begun but not complete
        for name in stage.weights:
            if name in host.weights:
                host.weights[name].train(name in ends and host.weights[name].ema is None)

    def _compile(self, op: Op) -> Callable[[StepContext], None] | None:
        """The call of an op, or None where it is not this host's."""
        if op.kind == "u":
            return self.update.compile(op)
        if op.kind == "gen":
            texts = self.host.plan.spec.streams[op.stream].prompts is not None
            return generate_op(self.inputs, op) if texts else write_op(self.inputs, op)
        if op.kind in ANSWERS.values():
            return answer_op(self.inputs, op) if op.node in self.host.agents else None
        if op.node in self.host.agents:
            if isinstance(view := self.inputs.shard(op.node, op.stream), Drawn):
                return forward_privately(self.inputs, op, view, refuse_detached)
            return forward_op(self.inputs, self.recorded, op)
        if op.node in self.host.plan.consensus:
            readers = [e.target for e in self.plan.edges if e.source == op.node and e.target in self.host.agents]
            node = self.host.plan.consensus[op.node]
            if not readers or node.space in ("loss", "gradient"):
                return None  # coefficients are made inside the target's update

            consensus = self.inputs.consensus

            def combine(context: StepContext) -> None:
                for reader in readers:
                    consensus(context, node.name, reader)

            return combine
        return None

    def numbers(self, ops: Sequence[Op] | None) -> Sequence[int]:
        """Those of this host's ops among all of them, by their places; None: all."""
        return self._all if ops is None else [self._numbers[op] for op in ops if op in self._numbers]

    def _purpose(self, op: Op) -> tuple[Purpose, tuple[str, ...]]:
        """What an op is made for, and by which nodes: forwards of who trains here are training, others teaching."""
        if op.kind == "u":
            return "training", self.update.together(op.node)
        forwards = op.node in self.host.agents and op.kind not in ANSWERS.values()
        learns = forwards and trains(self.inputs, op.node)
        return "training" if learns else "teaching", (op.node,)

    def took(self, seconds: Sequence[float]) -> None:
        """Add what ops took, in their order, to the stage's costs; an update's is shared among its weights."""
        spent = self.host.seconds_of(self._stage)
        for (purpose, nodes), more in zip(self._for, seconds, strict=True):
            for node in nodes if more else ():
                spent.add(purpose, node, more / len(nodes))

    def sent(self, op: Op) -> set[str]:
        """What of a forward, or of a written stream, other hosts read: nothing else leaves this one."""
        if op.kind == "gen":
            return PARTS | TEXT_PARTS
        if op not in self._sent:
            nodes, here = self.host.plan.consensus, self.host.agents

            edges = [*self.plan.edges, *(edge for node in nodes.values() for edge in node.inputs)]
            mine = [edge for edge in edges if (edge.source, edge.stream) == (op.node, op.stream) and not edge.unaligned]
            abroad = [edge for edge in mine if not here.keys() >= {*readers(edge.target, nodes)}]
            answers = op.kind in ANSWERS.values()
            self._sent[op] = {edge.output for edge in abroad if edge.asked == answers}
            asks = [e for e in edges if e.asked and (e.target, e.stream) == (op.node, op.stream) and not answers]
            self._sent[op] |= {edge.question for edge in asks if edge.source not in here}
        return self._sent[op]

    def answered(self) -> dict[str, Any]:
        """What frozen agents have answered ahead of steps, as JSON holds it, and of which phase."""
        return {"of": self._same, "ops": [[*op, ahead.state()] for op, ahead in self.inputs.ahead.items()]}

    def restore(self, saved: dict[str, Any]) -> None:
        """Have it answered again, if it is of this phase: then as many forwards follow as in an unbroken run."""
        if saved["of"] == self._same:
            for *op, state in saved["ops"]:
                self.inputs.ahead[Op(*op)].restore(state)

    def finish(self, context: StepContext) -> None:
        """After a step's last op: note what recorded flows will read later."""
        for key, value in context.kept.items():
            if isinstance(key, Key):
                shard = self.inputs.shard(key.source, key.stream)
                assert isinstance(shard, ShardView)  # nothing is recorded of what is written
                batch = self.inputs.batch(context, shard)
                at_once = any(e.source == key.source and e.refresh == "step" for e in self.recorded)
                if batch is not None:
                    tensor = dense(value[1][key.output] if key.output else frozen_copy(value)[0]).detach()
                    starts = self.host.agents[key.source].starts(shard.x, key.output)
                    self.host.publications.record(key, len(shard), batch.at, tensor, at_once, starts)

    def looks(self, step: int) -> bool:
        """Whether the answers of a step are looked at, which costs a pass over them.

        They are in some of the first steps, the last, and every so many between: it depends on the step alone, so that
        a resumed run says what an unbroken one does.
        """
        count = step + 1 - self.inputs.first
        return count % LOOK == 0 or step + 1 in self._last or (count < LOOK and count & (count - 1) == 0)

    def odd(self, context: StepContext) -> list[guard.Oddity]:
        """What is odd about the answers in a step that is over."""
        answers = {
            (op.node, op.stream): frozen_copy(value)[0] for op, value in context.values.items() if op.kind in ANSWERS
        }
        answers |= {(key[0], key[1]): value[0] for key, value in context.kept.items()}
        dead = [(*key, guard.DEAD) for key, value in answers.items() if key[0] in self.sources and guard.is_dead(value)]
        agents = {agent: value for (agent, _), value in answers.items()}
        soft = [
            (name, "", guard.SOFTENED) for name, value in agents.items() if oddities.softened(self.host, name, value)
        ]
        here = {name: self.host.agents[name] for name in agents if name in self.host.agents}
        moved = [(name, one.buffers.moved, guard.MOVED) for name, one in here.items() if one.buffers.moved]
        return [*dead, *soft, *moved]
