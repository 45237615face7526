"""Gates at work on one host: whether a flow adds its loss in a step, and whether weights are updated."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.errors import FAULTS, MeshError
from kdmesh.graph.edges import flow_names
from kdmesh.graph.gates import OF_BATCHES, OF_VALIDATION
from kdmesh.graph.steps import Op
from kdmesh.hosts import build, guard
from kdmesh.hosts.agent import reseed
from kdmesh.hosts.parameters import refuse_parameters
from kdmesh.hosts.state import Tally
from kdmesh.hosts.terms import Term, beside, softened
from kdmesh.offers import MEASURED, NOW
from kdmesh.signals import Signal
from kdmesh.signals.lazy import dense, faced
from kdmesh.streams.seeds import at_step, mix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdmesh.contracts.gate import Gate
    from kdmesh.graph.edges import Edge
    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.state import HostState
    from kdmesh.hosts.step import StepContext
    from kdmesh.hosts.weights import Weights
    from kdmesh.offers import GateOffer
    from kdmesh.spec import GateRef

Key = tuple[str, int | str]
"""Of a gate: ("flow", its id), ("update", the agent whose update it is for), or ("mix", the stream into which given
samples are mixed); names may be numbers."""


def make(host: HostState) -> dict[Key, Gate]:
    """The gates of agents here, and of flows into them, each set up and seeded by what it gates."""
    found: dict[Key, Gate] = {}
    for edge in host.plan.edges:
        if edge.gate is not None and edge.target in host.agents:
            found["flow", edge.id] = _made(host, edge.gate, edge.target, edge)
    for name in host.agents:
        gate = host.plan.spec.agents[name].gate
        if gate is not None:
            found["update", name] = _made(host, gate, name, None)
    for name, mixed, agent in mixes(host):
        found["mix", name] = _made(host, mixed, agent, None, name)
    return found


def mixes(host: HostState) -> Iterator[tuple[str, GateRef, str]]:
    """The streams that agents here write where a gate says, with that gate and the agent."""
    for name, stream in host.plan.spec.streams.items():
        if stream.mix is not None and stream.mix.gate is not None and stream.generated_by in host.agents:
            yield name, stream.mix.gate, stream.generated_by


def _made(host: HostState, ref: GateRef, agent: str, edge: Edge | None, mixed: str = "") -> Gate:
    offer: GateOffer = host.registry.find("gates", ref.name)
    ends = ("", agent, "update") if edge is None else (edge.source, agent, edge.id)
    ends, where = (ends, place(agent, edge)) if not mixed else (("mix", agent, mixed), of_mix(mixed))
    try:
        with guard.seeded(mix(host.seed, "gate", *ends), ours=offer.factory.startswith(guard.OURS)):
            gate: Gate = offer.make(ref.settings)
            refuse_parameters(host.registry, offer, "forward", gate.forward, 0, offer.needs, where)
            gate.setup(build.outputs(host, agent))
        if any(parameter.requires_grad for parameter in gate.parameters()):
            raise ValueError("it has weights to train, and no gradient reaches a gate")
        return gate.to(host.plan.train(agent).device)
    except FAULTS as error:
        host.registry.attribute_error("gates", ref.name, error, f"to be made for {mixed or edge or agent}", where)


def watched(host: HostState) -> set[str]:
    """The agents here whose figures on validation a gate is given."""
    agents = host.plan.spec.agents
    refs = [(name, agents[name].gate) for name in host.agents]
    refs += [(edge.target, edge.gate) for edge in host.plan.edges if edge.target in host.agents]
    refs += [(agent, ref) for _, ref, agent in mixes(host)]
    found = [(name, host.registry.find("gates", ref.name)) for name, ref in refs if ref is not None]
    return {name for name, offer in found if not OF_VALIDATION.isdisjoint(offer.needs)}


def place(agent: str, edge: Edge | None) -> str:
    """Where a gate stands in the file."""
    return f"agents.{agent}.gate" if edge is None else f"{edge.where}.gate"


def of_mix(stream: str) -> str:
    """The same of one that says when a stream is written."""
    return f"streams.{stream}.mix.gate"


class OpenOrShut:
    """One gate in one phase: what it is called with, and what it says."""

    def __init__(
        self, inputs: Inputs, agent: str, stream: str, edge: Edge | None = None, *, mixes: bool = False
    ) -> None:
        """``edge``: the flow that it gates, on this ``stream``; None: the agent's update, or, where it ``mixes``,
        whether the agent writes a batch of the stream.
        """
        host = inputs.host
        mix_of = host.plan.spec.streams[stream].mix if mixes else None
        ref = mix_of.gate if mix_of else host.plan.spec.agents[agent].gate if edge is None else edge.gate
        assert ref is not None
        self.inputs, self.agent, self.stream, self.edge, self.name = inputs, agent, stream, edge, ref.name
        self._where = of_mix(stream) if mixes else place(agent, edge)
        self._about = f"the batches of {stream}" if mixes else f"the flow {edge}" if edge else f"an update of {agent}"
        key: Key = ("mix", stream) if mixes else ("update", agent) if edge is None else ("flow", edge.id)
        self.gate = host.timed("gates", self.name, host.gates[key])
        self.tally = host.gated.setdefault(key, Tally())
        offer: GateOffer = host.registry.find("gates", ref.name)
        self.needs, self.rows = offer.needs, offer.rows
        self.shard = inputs.shard(agent, stream)
        self._own, self._device = Op("f", agent, stream), host.agents[agent].device
        self._place = guard.placed(self._device)
        self._looked = _informant(inputs, agent, edge) if ref.of else None
        self._of_batch = not {*self.needs}.isdisjoint(OF_BATCHES)
        self._sound = False  # whether it was seen to leave alone what it is given
        self._seed: int | None = None
        if not offer.factory.startswith(guard.OURS):  # random numbers, perhaps: ours draw none
            self._seed = mix(host.seed, "ask", edge.source if edge else "", agent, str(key[1]), inputs.plan.name)

    def looked(self, context: StepContext) -> Signal | None:
        """The logits of the agent that the mesh names with `of`; None where it names none, or knows none yet."""
        return None if self._looked is None else self._looked(context)

    def ask(self, context: StepContext, rows: int = 0, more: Callable[[str], Any] | None = None) -> bool | Tensor:
        """Whether it is open in this step, or factors of ``rows``; ``more``: makes facts about the flow, by name.

        While nothing is known of the agent that it looks at it is shut, and not asked; a step without a batch is none
        to ask about.
        """
        if self.edge is None and self._of_batch and self.inputs.batch(context, self.shard) is None:
            return True
        if self._looked is not None and self.looked(context) is None:
            return False
        try:
            facts = {name: self._fact(name, context, more) for name in self.needs}
            if self._seed is not None:  # after the facts, of which some draw
                reseed(at_step(self._seed, context.step), self._device)
            with torch.no_grad():
                before = guard.marks(facts.values())
                answer = self.gate(**facts) if self._sound else self._carefully(facts)
            if (after := guard.marks(facts.values())) != before:
                guard.refuse_worked_on(facts, before, after)
            if not self.rows:
                return self._count(guard.refuse_decision(answer))
            factors = guard.refuse_factors(answer, rows, self._place)
            return self._count(factors if bool(factors.any()) else False)
        except FAULTS as error:
            doing = f"at step {context.step} about {self._about}"
            self.inputs.host.registry.attribute_error("gates", self.name, error, doing, self._where)

    def _fact(self, name: str, context: StepContext, more: Callable[[str], Any] | None) -> Any:
        """One of the facts that a gate may need."""
        if name in NOW:
            return self.inputs.now(context, self.agent, name)
        if name == "metrics":
            return dict(self.inputs.host.figures.get(self.agent, {}))
        if name in MEASURED:
            return self._measured(name, context)
        if name == "agreement":
            return self.inputs.turn.agreements.get(self.agent)
        if name == "own":
            return dense(context.values[self._own][0]).detach()
        if name == "other":
            signal = self.looked(context)
            assert signal is not None
            return dense(signal.value).detach()
        if name in ("labels", "ids"):
            batch = self.inputs.batch(context, self.shard)
            assert batch is not None
            return batch.y if name == "labels" else self.shard.samples(batch.at)
        assert more is not None
        return more(name)

    def _measured(self, name: str, context: StepContext) -> int | None:
        """When the agent was last measured, in steps or epochs of this lesson, or how many steps ago; None: never."""
        lessons = self.inputs.host.measured.get(self.agent)
        if lessons is None:
            return None
        step = lessons.get(self.inputs.lesson, 0)
        if name == "measured_age":
            return context.step - step
        return step if name == "measured_step" else self.inputs.epoch_of(step, self.agent)

    def _carefully(self, facts: dict[str, Any]) -> Any:
        """Its first answer, of copies, which it must leave as they are."""
        given = {name: value.clone() if isinstance(value, Tensor) else value for name, value in facts.items()}
        answer = self.gate(**given)
        for name, value in given.items():
            guard.refuse_changed(value, facts[name], strict=True)
        self._sound = True
        return answer

    def _count(self, decision: bool | Tensor) -> bool | Tensor:
        self.tally.asked += 1
        self.tally.shut += decision is False
        if isinstance(decision, Tensor):
            self.tally.kept += int(decision.count_nonzero()) / len(decision)
        else:
            self.tally.kept += decision
        return decision


def _informant(inputs: Inputs, agent: str, edge: Edge | None) -> Callable[[StepContext], Signal | None]:
    """How a gate gets the logits of the agent that it looks at."""
    flow = None if edge is None else edge.id
    own = (one for one in inputs.host.plan.edges if one.as_ == "gate" and (one.target, one.gated) == (agent, flow))
    return inputs.fetcher(next(own), agent)


class GatedTerm(Term):
    """The loss of a flow with a gate: :meth:`ask` first, then the call, in the same step."""

    def __init__(self, edge: Edge, *args: Any) -> None:
        super().__init__(edge, *args)
        self.gate = OpenOrShut(self.inputs, edge.target, edge.stream, edge)
        self._asked: tuple[Any, Signal, bool | Tensor] | None = None
        if "losses" in self.gate.needs:
            self._refuse_state()
            self._of_rows = self._twin()

    def _refuse_state(self) -> None:
        """Losses of rows take a call more, which an objective with a memory would remember."""
        assert self.edge.objective is not None
        trained = {name for name, _ in self.objective.named_parameters()}
        if kept := self.objective.state_dict().keys() - trained:
            raise MeshError(
                f"gate {self.gate.name!r} needs the losses of single rows, and objective {self.edge.objective.name!r} "
                f"remembers what it compared ({min(kept)})",
                where=place(self.edge.target, self.edge),
                instead="a gate without losses, or another objective",
            )

    def _twin(self) -> Callable[..., Tensor]:
        """The call that gives losses of rows: of a copy with the same weights, so that its reports count no call."""
        assert self.edge.objective is not None
        name = self.edge.objective.name
        try:
            copied = copy.deepcopy(self.objective, {id(one): one for one in self.objective.parameters()})
        except FAULTS as error:
            doing = f"to be copied for gate {self.gate.name!r}, which needs losses, of the flow {self.edge}"
            self.inputs.host.registry.attribute_error("objectives", name, error, doing, self.edge.where)
        return self.inputs.host.timed("objectives", name, copied.forward)

    def ask(self, context: StepContext) -> bool | None:
        """Whether the flow adds its loss in this step; None where there is nothing to ask about."""
        self._asked = None
        signal = self.fetch(context)
        if signal is None:
            return None
        own = self.own(context)
        raw = signal
        if self.columns is not None:
            own, signal = self.shared(own, signal)
        if not len(own):
            return None
        own, signal = beside(own, signal)

        def fact(name: str) -> Tensor:
            value = dense(signal.value).detach()
            if name == "signal":
                return value
            if name == "confidence":
                return (value if signal.form == "probs" else value.softmax(-1)).amax(-1)
            if name == "counted":
                weights = signal.weights
                return value.new_ones(len(value), dtype=torch.bool) if weights is None else weights != 0
            return self._losses(context, own, signal, raw)

        decision = self.gate.ask(context, len(own), fact)
        self._asked = own, signal, decision
        return decision is not False

    def _losses(self, context: StepContext, own: Any, signal: Signal, raw: Signal) -> Tensor:
        """Each row's loss ``l_i``: B times the gradient by ``w_i`` of ``sum_i w_i l_i / B``, an objective's."""
        looked = self.gate.looked(context)
        if looked is not None:
            own, signal = (looked.value, raw) if self.columns is None else self.shared(looked.value, raw)
        own, value = (dense(side).detach() for side in faced(own, signal.value))
        if self._seed is not None:
            reseed(at_step(self._seed, context.step), self._device)
        with torch.enable_grad():
            ones = torch.ones(len(own), dtype=_wide(own), device=own.device, requires_grad=True)
            weights = ones if signal.weights is None else ones * signal.weights
            try:
                loss = self._of_rows(own, value, form=signal.form, weights=weights, **self.given(context))
                if not isinstance(loss, Tensor) or not loss.requires_grad:
                    raise ValueError("its loss does not depend on `weights`, by which a gate learns each row's")
                (gradient,) = torch.autograd.grad(loss, ones)
            except FAULTS as error:
                self.attribute_error(error, context.step)
        return gradient * len(own)

    def __call__(self, context: StepContext) -> Tensor | None:
        """The weighted loss, of the rows that are kept; None where the gate is shut."""
        if self._asked is None:
            return None
        own, signal, decision = self._asked
        self._asked = None
        if decision is False:
            return None
        self.seen = (own, signal)
        if isinstance(decision, Tensor):
            factors = decision.to(_wide(own))
            weights = factors if signal.weights is None else factors * signal.weights
            signal = Signal(signal.value, signal.form, weights)
        elif self.temperature is not None and isinstance(own, Tensor):
            signal = softened(context, signal, own, self.temperature)
        loss = self.compute(context, own, signal.value, signal.form, signal.weights, self.given(context))
        weight = self.factor if self.factor is not None else self.weight(context)
        return loss if weight == 1.0 else weight * loss


def _wide(value: Any) -> torch.dtype:
    """The type of a value, at least float32: of factors, which bfloat16 would round."""
    return torch.promote_types(value.dtype, torch.float32)


def gated(
    inputs: Inputs, group: list[Weights], terms: list[Term], reach: dict[int, set[str]], step: Callable[..., None],
    skipped: Callable[[StepContext], None],
) -> Callable[[StepContext], None]:  # fmt: skip
    """An update's ``step`` behind the gates of its flows and its own; ``step`` itself where there are none.

    ``reach``: by flow, the weights of the ``group`` that its gradient reaches. Where gates leave some of them no loss,
    ``step(context, left)`` is of the others; where the own gate is shut, or none is left, it is ``skipped``.
    """
    asked = [term for term in terms if isinstance(term, GatedTerm)]
    by_weights = [(weights, [term for term in terms if weights.name in reach[term.edge.id]]) for weights in group]
    own = _of_update(inputs, group, terms)
    if not asked and own is None:
        return step
    threads, set_threads = group[0].settings.threads, inputs.host.threads

    def whether(context: StepContext) -> None:
        set_threads(threads)
        if own is not None and own.ask(context) is False:
            skipped(context)
            return
        answers = {term.edge.id: term.ask(context) for term in asked}
        left = [weights for weights, theirs in by_weights if _left(theirs, answers, context)]
        if left:
            step(context, left)
        else:
            skipped(context)

    return whether


def _left(terms: list[Term], answers: dict[int, bool | None], context: StepContext) -> bool:
    """Whether gates leave a loss; where none is shut, there is none only because nothing is known yet."""
    said = [answers[term.edge.id] for term in terms if term.edge.id in answers]
    if False not in said or True in said:
        return True
    return any(term.edge.id not in answers and term.fetch(context) is not None for term in terms)


def _of_update(inputs: Inputs, group: list[Weights], terms: list[Term]) -> OpenOrShut | None:
    """The gate of an update, which is of its weights alone."""
    agents = inputs.host.plan.spec.agents
    names = [weights.name for weights in group if weights.name in agents and agents[weights.name].gate is not None]
    if not names:
        return None
    if len(group) > 1:
        others = " and ".join(weights.name for weights in group if weights.name != names[0])
        raise MeshError(
            f"gradients pass between {names[0]} and {others}, which are therefore updated together",
            where=f"agents.{names[0]}.gate",
            instead="gates on the flows, or detach: true between them",
        )
    stream = next((term.edge.stream for term in terms if term.edge.target == names[0]), inputs.plan.streams[0])
    return OpenOrShut(inputs, names[0], stream)


def told(host: HostState, agent: str) -> dict[str, dict[str, Any]]:
    """How the gates of an agent decided: of its flows by their names, under `update` of its update, and of the streams
    that it writes.
    """
    edges = [edge for edge in host.plan.edges if edge.target == agent and edge.objective is not None]
    names = flow_names(edges)
    found: list[tuple[str, Key, GateRef]] = [
        (names[edge.id], ("flow", edge.id), edge.gate) for edge in edges if edge.gate is not None
    ]
    if (gate := host.plan.spec.agents[agent].gate) is not None:
        found.append(("update", ("update", agent), gate))
    found += [(f"batches of {name}", ("mix", name), ref) for name, ref, writer in mixes(host) if writer == agent]
    out = {}
    for name, key, ref in found:
        tally = host.gated.get(key, Tally())
        share = tally.kept / tally.asked if tally.asked else math.nan
        out[name] = {"gate": ref.name, "asked": tally.asked, "shut": tally.shut} | (
            {"kept": share} if tally.asked else {}
        )
    return out
