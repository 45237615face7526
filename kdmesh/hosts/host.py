"""A host: a process that holds agents. Plain Python; a backend decides whether it lives here or in an actor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kdmesh.errors import RunFailed
from kdmesh.hosts import (
    answered,
    build,
    checkpoint,
    costs,
    endpoints,
    export,
    gates,
    guard,
    histories,
    measure,
    measured_texts,
    merging,
    publish,
    rules,
    side_inputs,
    told_labels,
    withheld,
    writing,
)
from kdmesh.hosts.authors import authors
from kdmesh.hosts.optimizers import load_optimizers
from kdmesh.hosts.packing import Bundle, Packed, Published, pack, unpack
from kdmesh.hosts.phase import CompiledPhase
from kdmesh.hosts.state import HostState, Kept
from kdmesh.hosts.step import ALONE, Report, StepContext, Turn, frozen_copy
from kdmesh.hosts.update import refuse_joint

if TYPE_CHECKING:
    from kdmesh.graph.fragment import Fragment
    from kdmesh.hosts.measured_texts import Said
    from kdmesh.hosts.remote import RemoteHost
    from kdmesh.hosts.shelf import Told
    from kdmesh.privacy.summary import Summary
    from kdmesh.streams.table import Table


class Host(HostState):
    """What a backend calls, one method at a time, in order; the work is in the modules beside this one."""

    def _assemble(self, table: Table) -> None:
        """Build agents, rules and objectives of the plan and the data."""
        names, plan = self.plan.hosts[self.name], self.plan
        self.values = self.values or side_inputs.distinct(plan, table)
        build.codecs_of(plan, self.registry)
        self.weights = {owner: build.weights(self, owner) for owner in dict.fromkeys(plan.owner[n] for n in names)}
        self.agents = {agent: build.agent(self, agent, self.weights[plan.owner[agent]]) for agent in names}
        self.writers = writing.writers(self)
        self.authors = authors(self)
        self.consensus = build.consensus(self)
        self.pools = merging.rules(self)
        self.objectives = {
            edge.id: build.objective(self, edge)
            for edge in plan.edges
            if edge.target in self.agents and edge.objective and not told_labels.awaited(self, edge)
        }
        self.gates = gates.make(self)
        self.watched = gates.watched(self)
        self.weights |= build.trained_rules(self)
        refuse_joint(self)
        if any(map(self._learns, self.weights)):
            load_optimizers()
        self._phases: dict[str, CompiledPhase] = {}  # by stage: stages without a path between them take turns here

    def _learns(self, name: str) -> bool:
        """Whether gradient descent moves some weights: of an agent, or of a rule."""
        return name in self.plan.consensus or self.plan.spec.agents[name].learns

    # -- training --------------------------------------------------------------------------------------------------

    def start(self, stage: str, updates: dict[str, int]) -> None:
        """Make the optimisers of a stage's weights, each for so many planned updates."""
        for name in self.plan.stage(stage).weights:
            if name in self.weights and self._learns(name):
                extra = [
                    parameter
                    for edge in self.plan.edges
                    if self.plan.owner.get(edge.target) == name and edge.id in self.objectives
                    for parameter in self.objectives[edge.id].parameters()
                ]
                self.weights[name].start(updates.get(name, 1), extra)

    def begin(
        self, stage: str, key: str, ends: dict[str, int], first: int, shifts: dict[str, int], turn: Turn = ALONE
    ) -> None:
        """Compile a phase that began at step ``first``, for the weights in ``ends``. See :class:`CompiledPhase`."""
        plan = self.plan.stage(stage)
        phase = self._phases[stage] = CompiledPhase(self, plan, plan.phases[key], ends, first, shifts, turn)
        self.answering[stage] = phase.answered
        if (saved := self.answered.pop(stage, None)) is not None:
            phase.restore(saved)

    def end(self, stage: str) -> None:
        """The stage is over: its weights answer in eval mode from here on."""
        self._phases.pop(stage, None)
        self.answering.pop(stage, None)
        self.step = None
        for name in self.plan.stage(stage).weights:
            if name in self.per_sample:
                self.per_sample.pop(name).close()
            if name in self.weights:
                self.weights[name].train(False)

    def run(self, fragment: Fragment, *imports: Bundle) -> tuple[Bundle, Report]:
        """Run the ops of a fragment; returns what other hosts need of it, and how it went."""
        before = {name: agent.forwards for name, agent in self.agents.items()}
        phase = self._phases[fragment.stage]
        device = self.device
        arrived: dict[int, list[tuple[Any, Any]]] = {}
        for bundle in imports:
            for (step, op), value in unpack(bundle, device).items():
                arrived.setdefault(step, []).append((op, value))
        exports: Bundle = {}
        everything, clock, now = list(phase.ops.values()), costs.Clock(len(phase.ops), device), time.perf_counter
        spent = clock.spent
        odd: dict[guard.Oddity, None] = {}
        for step, ops in fragment.work():
            context = phase.contexts.get(step)
            if context is None:
                context = phase.contexts[step] = StepContext(step)
            self.step = step
            for op, value in arrived.pop(step, ()):
                context.values[op] = value
                if op.kind == "gen":
                    writing.keep(self, op, step, value)
            if clock.due():
                at = now()
                for number in phase.numbers(ops):
                    everything[number](context)
                    then = now()
                    spent[number] += then - at
                    at = then
            elif ops is None:
                for call in everything:
                    call(context)
            else:
                for op in ops:
                    if op in phase.ops:
                        phase.ops[op](context)
            for op in fragment.exports.get(step, ()):
                if self.streams[op.stream].private:
                    raise RunFailed(f"a signal made on the private stream {op.stream!r} would leave {self.name}")
                if op in context.values:
                    exports[step, op] = pack(frozen_copy(context.values[op]), phase.sent(op))
            if step in fragment.complete:
                phase.finish(context)
                del phase.contexts[step]
                if phase.looks(step):
                    odd.update(dict.fromkeys(phase.odd(context)))
        self.step = None
        phase.took(clock.stop())
        for name, agent in self.agents.items():
            self.count(fragment.stage, name, agent.forwards - before[name])
        report = Report(phase.update.report(), list(odd), phase.update.told(), phase.inputs.told_texts())
        return exports, withheld.report(self, report)

    # -- publishing: see publish.py --------------------------------------------------------------------------------

    def publish(
        self,
        agent: str,
        stream: str,
        outputs: tuple[str, ...],
        measure: bool = False,
        stage: str = "",
        *given: Published,
    ) -> Published:
        """What readers want of an agent, of a full evaluation pass over a stream."""
        return publish.publish(self, agent, stream, outputs, measure, stage, given)

    def publish_consensus(self, consensus: str, readers: tuple[str, ...], when: str = "") -> Published:
        """What a consensus that is formed here says of its whole stream, for readers elsewhere."""
        return publish.publish_consensus(self, consensus, readers, when)

    def passed(self, agent: str, stream: str) -> int:
        """How many forwards an agent's last publication on a stream took."""
        return self.passes[agent, stream]

    def commit(self, agent: str, stream: str, output: str) -> Published:
        """Make an agent's recorded values visible, and return them for readers elsewhere."""
        return publish.commit(self, agent, stream, output)

    def receive(self, *published: Published) -> list[guard.Oddity]:
        """Keep publications of this and other hosts; returns the oddities found in them."""
        return withheld.oddities(self, publish.receive(self, *published))

    def tell_labels(self, agent: str, stream: str) -> Published:
        """The labels of an agent's samples on a stream, for agents that see what it says of these."""
        return told_labels.tell(self, agent, stream)

    def take_labels(self, *published: Published) -> None:
        """Keep labels that agents of others tell."""
        told_labels.take(self, *published)

    def recall(self, agent: str, stream: str, outputs: tuple[str, ...]) -> Published:
        """What an agent published and this host reads, as it was published."""
        return publish.recall(self, agent, stream, outputs)

    def renew(self, consensus: dict[str, list[str]]) -> None:
        """Make nodes anew, by name, when these agents next read them."""
        for name, agents in consensus.items():
            for agent in agents:
                self.consensus[name].renew(agent)

    def away(self, parties: dict[str, int], forget: bool) -> None:
        """These do not take part, for so many rounds in a row; ``forget`` what they have published."""
        rules.set_away(self, parties, forget)

    def export_state(self, agent: str) -> dict[str, Packed]:
        """An agent's weights as they are now."""
        return publish.export_state(self, agent)

    def take_snapshot(self, agent: str, state: dict[str, Packed]) -> None:
        """Keep an agent's old weights, to be forwarded live."""
        publish.take_snapshot(self, agent, state)

    # -- weights that flow: see merging.py -------------------------------------------------------------------------

    def combine_weights(
        self, consensus: str, present: list[bool], at: int, *states: dict[str, Packed]
    ) -> dict[str, Packed]:
        """What a consensus of weights makes of those of its sources that are present, after so many steps."""
        return merging.combine(self, consensus, present, at, states)

    def take_weights(self, owner: str, shares: list[float], *states: dict[str, Packed]) -> None:
        """Load the average of some weights, by their shares, into a set of weights."""
        merging.take(self, owner, shares, states)

    # -- measuring and saving: see measure.py and export.py --------------------------------------------------------

    def evaluate(self, agent: str, stream: str, *given: Published) -> dict[str, Any]:
        """What is known of an agent's quality on a stream whose labels are known: see metrics.py."""
        return withheld.figures(self, agent, stream, measure.evaluate(self, self.agents[agent], stream, given))

    def say(self, stream: str, split: str, read: dict[str, Said]) -> Said:
        """What a stream of texts would have if the prompts of a split were its own, and its figures."""
        return measured_texts.say(self, stream, split, read)

    def measured_at(self, agent: str, done: dict[str, int]) -> None:
        """Note for gates that an agent was just measured on validation, when so many steps were done, by lesson."""
        self.measured[agent] = done

    def evaluate_consensus(
        self, consensus: str, stream: str, among: list[str], *published: Published
    ) -> measure.ConsensusFigures:
        """Quality of a consensus, agreement and churn of the sources in ``among``, from their signals on a stream."""
        if self.withholds:
            return {"quality": {}, "oracle": False}
        return measure.evaluate_consensus(self, consensus, stream, among, published)

    def remember(self, consensus: str, run: dict[str, Any], round: int, *published: Published) -> dict[str, str]:
        """Keep a round of a consensus, of its sources' signals; returns the entries of the store, by who spoke."""
        return histories.remember(self, consensus, run, round, published)

    def remember_texts(
        self, stream: str, run: dict[str, Any], round: int, records: list[dict[str, Any]]
    ) -> dict[str, str]:
        """Keep a round of a stream that a rule made; returns its entry of the store, by its name."""
        return histories.remember_texts(self, stream, run, round, records)

    def report(self, consensus: str) -> dict[str, float]:
        """What the rule of a consensus says of itself."""
        return {} if self.withholds else rules.report(self, consensus)

    def answers(self) -> dict[str, Kept]:
        """How agents and consensus nodes answered each test sample, as last measured; it is kept no longer."""
        return {} if self.withholds else answered.taken(self)

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
            self.weights[owner].load(self.best.pop(owner)[1])

    def describe(self) -> dict[str, dict[str, Any]]:
        """Per agent: parameters, sha256 of the weights, latency of one sample in ms, forwards made."""
        return {name: withheld.described(self, name, measure.describe(self, one)) for name, one in self.agents.items()}

    def account(self) -> Summary | None:
        """What the party here has spent of its privacy budget; None where it has none."""
        known = self.config.accounts.get(self.name)
        return None if known is None else known.summary()

    def costs(self) -> costs.HostCosts:
        """What this host's work cost: FLOPs and seconds by agent, memory and CPU seconds of the process."""
        return costs.costs_of(self)

    def shelved(self) -> Told | None:
        """What the store had of what agents here were asked for; None where there is none."""
        return (
            None
            if self.shelf is None
            else self.shelf.told([name for name, one in self.agents.items() if one.weights.unread])
        )

    def endpoints(self) -> dict[str, endpoints.Asked]:
        """What agents here that are behind endpoints were asked, by the weights' owner."""
        return endpoints.told(self)

    def sees(self, folder: str, token: str) -> bool:
        """Whether a folder here is the driver's."""
        return export.sees(self.name, folder, token)

    def save(self, stage: str, folder: str | None) -> export.Part:
        """Write, or hand over, this host's part of a stage's checkpoint; returns the files."""
        return checkpoint.save(self, stage, folder)

    def load(self, stage: str, given: str | export.Part) -> None:
        """Put back this host's part of a stage's checkpoint."""
        checkpoint.load(self, stage, given)

    def save_agent(self, agent: str, folder: str | None, card: dict[str, Any]) -> export.Export:
        """Write, or hand over, an agent's folder, and compare what is read back: safetensors, config and a card."""
        return export.save_agent(self, agent, folder, card)

    def save_rule(self, consensus: str, folder: str | None) -> export.Export:
        """The same of a consensus whose rule has weights or a state; no files of one that has neither."""
        return export.save_rule(self, consensus, folder)


if TYPE_CHECKING:
    _meets: type[RemoteHost] = Host  # checked here: arguments and results of every call of the engine
