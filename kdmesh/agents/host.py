"""A host: a process that holds agents. Plain Python; a backend decides whether it lives here or in an actor."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from kdmesh.agents import building, facts, guard, measure, saving, state
from kdmesh.agents.agent import Agent
from kdmesh.agents.build import build, load_weights, origin, plain_module
from kdmesh.agents.crossing import Bundle, pack, unpack
from kdmesh.agents.feed import Feed
from kdmesh.agents.lesson import Frame, Lesson, settled
from kdmesh.agents.optimizers import load_optimizers
from kdmesh.agents.reading import Reading
from kdmesh.agents.weights import Weights
from kdmesh.errors import RunFailed
from kdmesh.signals import Signal
from kdmesh.store import Key, Store
from kdmesh.streams.private import own_part
from kdmesh.streams.stream import without
from kdmesh.streams.views import View

if TYPE_CHECKING:
    from kdmesh.agents.feed import Lane
    from kdmesh.agents.reading import Files
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan
    from kdmesh.graph.segment import Segment
    from kdmesh.plugins import Registry
    from kdmesh.store import Publication
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table


@dataclass
class Blueprint:
    """What every host is built from.

    ``shapes``: the shape, without its batch axis, of a tap or of a signal that is made, by (agent, name), and under the
    name "" of outputs that are not one per class. ``strict``: what a consensus gives is checked. ``tokenizers``: of
    agents that read texts, by the weights' owner. ``left_out``: rows of the table that no agent sees.
    ``learned``: by agent, the records of :mod:`kdmesh.streams.learned`. ``values``: of columns that
    rules read, all there are in the data.
    """

    plan: Plan
    modules: dict[str, nn.Module] = field(default_factory=dict)
    shapes: dict[tuple[str, str], torch.Size] = field(default_factory=dict)
    strict: bool = False
    tokenizers: dict[str, Files] = field(default_factory=dict)
    left_out: Tensor | None = None
    learned: dict[str, list[Any]] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)


class Report(NamedTuple):
    """Of the steps that a host ran: mean losses by weights, and what is odd about answers in some of them."""

    losses: dict[str, float]
    odd: list[guard.Oddity]


class Host:
    """Agents, their weights, streams and store. Methods are called by a backend, one at a time, in order."""

    def __init__(
        self, name: str, blueprint: Blueprint, table: Table, streams: dict[str, Stream], registry: Registry
    ) -> None:
        self.name, self.plan, self.registry = name, blueprint.plan, registry
        self.blueprint = blueprint
        self.dropped = self.plan.dropped
        self.seed = self.plan.spec.seed
        self.fixed = min(self.plan.spec.train.batch_size, len(table))  # rows of a forward whose bits must not vary
        self.streams = without(streams, blueprint.left_out)
        self.values = blueprint.values or facts.distinct(self.plan, table)  # also of samples that are not here
        self.table = own_part(table, self.streams, self.plan.hosts[name], self.plan.users)
        self.reading = Reading(self.plan, self.table, registry, blueprint.tokenizers)
        self.feed = Feed(self.reading, self.streams, self.seed)
        self.store = Store()
        self.snapshots: dict[str, Agent] = {}
        self._threads = 0
        self._numbers: dict[tuple[str, int], Tensor] = {}
        names = self.plan.hosts[name]
        self.weights = {owner: self._weights(owner) for owner in dict.fromkeys(self.plan.owner[n] for n in names)}
        self.agents = {agent: self._agent(agent, self.weights[self.plan.owner[agent]]) for agent in names}
        self.consensus = building.consensus(self)
        self.objectives = {
            edge.id: building.objective(self, edge)
            for edge in self.plan.edges
            if edge.target in self.agents and edge.objective
        }
        self._adopt_trained_rules()
        if any(name in self.plan.trainable and weights.ema is None for name, weights in self.weights.items()):
            load_optimizers()
        self.made: dict[str, dict[str, int]] = {}  # forwards for a stage that has agents here, by stage and agent
        self._passes: dict[tuple[str, str], int] = {}  # forwards of the last publication, by agent and stream
        self._lessons: dict[str, Lesson] = {}  # by stage: stages without a path between them take turns here
        self.guesses: dict[str, Tensor] = {}
        self._softened: dict[str, bool] = {}  # whether an agent's answers look like probabilities, by the first ones
        self.best: dict[str, tuple[float, dict[str, Tensor]]] = {}

    # -- building --------------------------------------------------------------------------------------------------

    def _weights(self, owner: str) -> Weights:
        spec, settings = self.plan.spec.agents[owner], self.plan.train(owner)
        module = build(self.plan, owner, self.reading, self.registry, self.blueprint.modules, settings.device)
        first = origin(self.plan, owner)
        if (path := self.plan.spec.agents[first].weights) is not None:
            load_weights(module, path, f"agents.{owner}.weights")
        elif first != owner and first in self.blueprint.modules:
            module.load_state_dict(plain_module(copy.deepcopy(self.blueprint.modules[first])).state_dict())
        weights = Weights(owner, module, settings, spec.ema)
        if spec.ema is not None or owner not in self.plan.trainable:
            module.requires_grad_(False)
        module.eval()
        return weights

    def _agent(self, name: str, weights: Weights) -> Agent:
        spec = self.plan.spec.agents[name]
        view = None
        if spec.view.augment:
            view = View(
                [building.view(self, name, number) for number in range(len(spec.view.augment))], spec.view.draws
            )
        makes = {
            edge.what: building.signal(self, edge, weights.module)
            for edge in self.plan.edges
            if edge.made is not None and edge.source == name
        }
        return Agent(name, weights, view, spec.taps, makes, spec.exit)

    def columns(self, edge: Edge) -> int | Tensor | None:
        """Which of the reader's columns a flow compares: see building.py."""
        return building.columns(self, edge)

    def numbers(self, node: ConsensusNode, lane: Lane) -> Tensor:
        """The column that a rule reads, on a lane: see facts.py."""
        key = (node.name, id(lane))
        if key not in self._numbers:
            self._numbers[key] = facts.numbers(self, node, lane)
        return self._numbers[key]

    def _adopt_trained_rules(self) -> None:
        """A trained rule is a set of weights like any other; its readers' settings train it."""
        for name, consensus in self.consensus.items():
            if consensus.node.trained:
                settings = self.plan.train(consensus.node.readers[0].target)
                self.weights[name] = Weights(name, consensus.rule.to(settings.device), settings)

    def threads(self, count: int) -> None:
        """Use so many torch threads from here on."""
        if count != self._threads:
            torch.set_num_threads(count)
            self._threads = count

    # -- training --------------------------------------------------------------------------------------------------

    def start(self, stage: str, updates: dict[str, int]) -> None:
        """Make the optimisers of a stage's weights, each for so many planned updates."""
        for name in self.plan.stage(stage).weights:
            if name in self.weights and self.weights[name].ema is None:
                extra = [
                    parameter
                    for edge in self.plan.edges
                    if self.plan.owner.get(edge.target) == name and edge.id in self.objectives
                    for parameter in self.objectives[edge.id].parameters()
                ]
                self.weights[name].start(updates.get(name, 1), extra)

    def begin(self, stage: str, key: str, ends: dict[str, int], first: int, shifts: dict[str, int]) -> None:
        """Compile a lesson that began at step ``first``, for the weights in ``ends``. See :class:`Lesson`."""
        plan = self.plan.stage(stage)
        self._lessons[stage] = Lesson(self, plan, plan.lessons[key], ends, first, shifts)

    def end(self, stage: str) -> None:
        """The stage is over: its weights answer in eval mode from here on."""
        self._lessons.pop(stage, None)
        for name in self.plan.stage(stage).weights:
            if name in self.weights:
                self.weights[name].module.eval()

    def run(self, segment: Segment, *imports: Bundle) -> tuple[Bundle, Report]:
        """Run the ops of a segment; returns what other hosts need of it, and how it went."""
        before = {name: one.forwards for name, one in self.agents.items()}
        lesson = self._lessons[segment.stage]
        device = next(iter(self.agents.values())).device
        arrived: dict[int, list[tuple[Any, Any]]] = {}
        for bundle in imports:
            for (step, op), value in unpack(bundle, device).items():
                arrived.setdefault(step, []).append((op, value))
        exports: Bundle = {}
        everything = list(lesson.ops.values())
        odd: dict[guard.Oddity, None] = {}
        for step, ops in segment.work():
            frame = lesson.frames.get(step)
            if frame is None:
                frame = lesson.frames[step] = Frame(step)
            for op, value in arrived.pop(step, ()):
                frame.values[op] = value
            if ops is None:
                for call in everything:
                    call(frame)
            else:
                for op in ops:
                    if op in lesson.ops:
                        lesson.ops[op](frame)
            for op in segment.exports.get(step, ()):
                if self.streams[op.stream].private:
                    raise RunFailed(f"a signal made on the private stream {op.stream!r} would leave {self.name}")
                if op in frame.values:
                    exports[step, op] = pack(settled(frame.values[op]), lesson.sent(op))
            if step in segment.complete:
                lesson.finish(frame)
                del lesson.frames[step]
                if lesson.looks(step):
                    odd.update(dict.fromkeys(lesson.odd(frame)))
        for name, one in self.agents.items():
            self._count(segment.stage, name, one.forwards - before[name])
        return exports, Report(lesson.update.report(), list(odd))

    def _count(self, stage: str, agent: str, forwards: int) -> None:
        if forwards:
            made = self.made.setdefault(stage, {})
            made[agent] = made.get(agent, 0) + forwards

    # -- publishing ------------------------------------------------------------------------------------------------

    def publish(
        self, agent: str, stream: str, whats: tuple[str, ...], measure: bool = False, stage: str = ""
    ) -> dict[Key, Any]:
        """A full evaluation pass of an agent over a stream, in fixed-size padded batches: what readers want of it.

        To ``measure`` is not to teach: the pass is on the samples as they are. ``stage``: to whose count it goes.
        """
        one = self.agents[agent]
        lane = self.feed.lane(stream, agent, one.device)
        self.threads(one.weights.settings.threads)
        made = one.forwards
        names = tuple(what for what in whats if what)
        logits, values = one.still(lane.x if measure else one.see(lane.x, lane.ids, 0), self.fixed, names)
        self._passes[agent, stream] = one.forwards - made
        if stage:
            self._count(stage, agent, one.forwards - made)
        found = {Key(agent, stream, what): values[what] if what else logits for what in whats}
        return {key: pack((value, {"starts": one.starts(lane.x, key.what)})) for key, value in found.items()}

    def passes(self, agent: str, stream: str) -> int:
        """How many forwards an agent's last publication on a stream took."""
        return self._passes[agent, stream]

    def commit(self, agent: str, stream: str, what: str) -> dict[Key, Any]:
        """Make an agent's recorded values visible, and return them for readers elsewhere."""
        key = Key(agent, stream, what, "recorded")
        publication = self.store.commit(key)
        return {} if publication is None else {key: _packed(publication)}

    def receive(self, *published: dict[Key, Any]) -> list[guard.Oddity]:
        """Store what was published, here or elsewhere, one after the other; returns what is odd about it."""
        device = next(iter(self.agents.values())).device
        odd: dict[guard.Oddity, None] = {}
        for key, packed in (item for part in published for item in part.items()):
            values, more = next(iter(unpack({0: packed}, device).values()))
            self.store.put(key, values, more.get("present"), more.get("starts"))
            if guard.is_dead(values):
                odd[key.source, key.stream, guard.DEAD] = None
            if not key.what and self.softened(key.source, values):
                odd[key.source, "", guard.SOFTENED] = None
        return list(odd)

    def softened(self, agent: str, answers: Any) -> bool:
        """Whether the first logits that were seen of an agent look like probabilities."""
        if agent not in self._softened and isinstance(answers, Tensor) and len(answers):
            self._softened[agent] = guard.is_softened(answers)
        return self._softened.get(agent, False)

    def export_state(self, agent: str) -> dict[str, Any]:
        """An agent's weights as they are now."""
        return {name: pack((value, {})) for name, value in self.weights[self.plan.owner[agent]].state().items()}

    def take_snapshot(self, agent: str, state: dict[str, Any]) -> None:
        """Keep an agent's old weights, to be forwarded live."""
        device = torch.device("cpu")
        values = {name: value[0] for name, value in unpack(state, device).items()}
        if agent not in self.snapshots:
            owner = self.plan.owner[agent]
            settings = self.plan.train(owner)
            module = build(self.plan, owner, self.reading, self.registry, self.blueprint.modules, settings.device)
            self.snapshots[agent] = self._agent(agent, Weights(owner, module.eval().requires_grad_(False), settings))
        self.snapshots[agent].module.load_state_dict(values)

    def blame_rule(self, name: str, error: Exception, when: str) -> NoReturn:
        """Raise, with whose rule it is, what a consensus raised."""
        rule = self.plan.consensus[name].rule.name
        self.registry.blame("consensus", rule, error, f"to combine {when}", f"consensus.{name}")

    def stored_consensus(self, name: str, reader: str, lane: Lane) -> Signal | None:
        """A consensus whose inputs are all stored, formed once on the whole stream."""
        consensus = self.consensus[name]

        def fetch(edge: Edge) -> Signal | None:
            if edge.source in self.consensus:
                return self.stored_consensus(edge.source, reader, lane)
            if edge.source in self.dropped:
                return None
            publication = self.store.get(Key(edge.source, lane.stream.base or lane.stream.name, edge.what))
            return None if publication is None else Signal(publication.values.to(lane.device), edge.form)

        def make() -> Signal | None:
            try:
                node = consensus.node
                return consensus.combine(reader, fetch, lane.y, self.numbers(node, lane) if node.column else None)
            except Exception as error:
                self.blame_rule(name, error, f"the stream {lane.stream.name!r}")

        return consensus.table(reader, self.store.version, make)

    # -- measuring and saving: see measure.py and saving.py --------------------------------------------------------

    def evaluate(self, agent: str, stream: str) -> dict[str, float]:
        """What is known of an agent's quality on a stream whose labels are known: see metrics.py."""
        return measure.evaluate(self, self.agents[agent], stream)

    def judge(self, consensus: str, stream: str, among: list[str], *published: dict[Key, Any]) -> dict[str, Any]:
        """Quality of a consensus, agreement and churn of the sources in ``among``, from their signals on a stream."""
        return measure.judge(self, consensus, stream, among, published)

    def keep_best(self, agent: str, value: float) -> bool:
        """Early stopping: remember the weights if this validation value (larger is better) is the best so far."""
        owner = self.plan.owner[agent]
        if owner in self.best and value <= self.best[owner][0]:
            return False
        self.best[owner] = (value, self.weights[owner].state())
        return True

    def restore_best(self, agent: str) -> None:
        """Put back the best weights."""
        owner = self.plan.owner[agent]
        if owner in self.best:
            self.weights[owner].module.load_state_dict(self.best.pop(owner)[1])

    def describe(self) -> dict[str, dict[str, Any]]:
        """Per agent: parameters, sha256 of the weights, latency of one sample in ms, forwards made."""
        return {name: measure.describe(self, agent) for name, agent in self.agents.items()}

    def sees(self, folder: str, token: str) -> bool:
        """Whether a folder here is the driver's."""
        return saving.sees(self.name, folder, token)

    def save(self, stage: str, folder: str | None) -> saving.Part:
        """Write, or hand over, this host's part of a stage's checkpoint; returns the files."""
        return state.save(self, stage, folder)

    def load(self, stage: str, given: str | saving.Part) -> None:
        """Put back this host's part of a stage's checkpoint."""
        state.load(self, stage, given)

    def recall(self, agent: str, stream: str, whats: tuple[str, ...]) -> dict[Key, Any]:
        """What an agent published and this host reads, as it was published."""
        found = {key: self.store.get(key) for key in (Key(agent, stream, what) for what in whats)}
        return {key: _packed(one) for key, one in found.items() if one is not None}

    def save_agent(self, agent: str, folder: str | None, card: dict[str, Any]) -> saving.Export:
        """Write, or hand over, an agent's folder, and compare what is read back: safetensors, config and a card."""
        return saving.save_agent(self, agent, folder, card)


def _packed(one: Publication) -> Any:
    return pack((one.values, {"present": one.present, "starts": one.starts}))
