"""The losses that reach one agent: one term per flow, in declared order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from kdmesh.errors import FAULTS
from kdmesh.hosts import build, guard, rules
from kdmesh.hosts.agent import reseed
from kdmesh.signals import Signal
from kdmesh.signals.crossing import LARGE
from kdmesh.signals.lazy import Lazy, dense, faced, narrowed
from kdmesh.spec import Ramp
from kdmesh.streams.seeds import at_step, mix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kdmesh.contracts.objective import Objective
    from kdmesh.graph.edges import Edge
    from kdmesh.hosts.consensus import Consensus
    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.step import StepContext


class Term:
    """``weight * objective(own signal, target)`` of one flow; None in a step in which nothing is known yet."""

    def __init__(
        self,
        edge: Edge,
        objective: Objective,
        own: Callable[[StepContext], Any],
        inputs: Inputs,
        temperature: float | None = None,
    ) -> None:
        """``temperature``: at which the signal's distribution serves several flows, see :func:`shared_targets`."""
        self.edge, self.objective, self.own, self.inputs = edge, objective, own, inputs
        self.fetch = inputs.fetcher(edge, edge.target)
        self.factor = None if isinstance(edge.weight, Ramp) else edge.weight
        assert edge.objective is not None
        self.forward = inputs.host.timed(  # no module hooks on the hot path
            "objectives", edge.objective.name, objective.forward
        )
        self.columns = build.columns(inputs.host, edge)
        self.temperature = temperature
        self.seen: tuple[Any, Signal] | None = None  # of the last step, for the report of a broken loss
        assert edge.objective is not None
        host, offer = inputs.host, inputs.host.registry.find("objectives", edge.objective.name)
        self._looked = False
        self._seed, self._device = None, host.agents[edge.target].device
        if not offer.factory.startswith(guard.OURS):  # random numbers, perhaps: ours draw none
            self._seed = mix(host.seed, "loss", edge.source, edge.target, edge.id, inputs.plan.name)

    def given(self, context: StepContext, source: str = "") -> dict[str, Tensor | None]:
        """What else of the batch the objective is called with, about a source: by default the flow's."""
        edge = self.edge
        return (
            self.inputs.facts(context, edge.target, edge.stream, edge.needs, source or edge.source)
            if edge.needs
            else {}
        )

    def shared(self, own: Any, signal: Signal) -> tuple[Any, Signal]:
        """Both sides, of the columns that both have: softmax renormalises over these."""
        if isinstance(self.columns, Tensor):
            return dense(own)[..., self.columns], signal
        assert self.columns is not None
        value = signal.value if signal.form == "labels" else narrowed(signal.value, self.columns)
        return narrowed(own, self.columns), Signal(value, signal.form, signal.weights)

    def compute(
        self, context: StepContext, own: Any, target: Any, form: str, weights: Tensor | None, given: dict[str, Any]
    ) -> Tensor:
        """The objective's loss, checked.

        What it draws is seeded by flow and step, whatever else was computed on this host.
        """
        look = False  # at more than versions, where it is not ours: that takes longer
        if self._seed is not None:
            reseed(at_step(self._seed, context.step), self._device)
            look = not self._looked or context.step % guard.LOOK == 0
        elif self._looked:  # of ours the first is checked, which tells of a model or a rule that does not fit
            return self.forward(own, target, form=form, weights=weights, **given)
        self._looked = True
        more = (weights, *given.values()) if weights is not None or given else ()
        before, rest = guard.both_marks(own, target), guard.marks(more) if more else []
        if look:
            with guard.alone():
                kept = guard.copies((own, target, *more))
                loss: Tensor = self.forward(own, target, form=form, weights=weights, **given)
            guard.refuse_loss(loss, own)
            guard.refuse_apart(loss, own)
            guard.refuse_written_on(("student", "target", "weights", *given), (own, target, *more), kept)
        else:
            loss = self.forward(own, target, form=form, weights=weights, **given)
            guard.refuse_loss(loss, own)
        if guard.both_marks(own, target) != before or (more and guard.marks(more) != rest):
            names = ("student", "target", "weights", *given)
            guard.refuse_worked_on(names, [*before, *rest], guard.marks((own, target, *more)))
        return loss

    def attribute_error(self, error: BaseException, step: int) -> NoReturn:
        """Raise, with whose objective it is, what it raised."""
        assert self.edge.objective is not None
        doing, where = f"to compute at step {step} on the flow {self.edge}", self.edge.where
        self.inputs.host.registry.attribute_error("objectives", self.edge.objective.name, error, doing, where)

    def weight(self, context: StepContext) -> float:
        """The flow's weight in this epoch of its phase."""
        if self.factor is not None:
            return self.factor
        assert isinstance(self.edge.weight, Ramp)
        return self.edge.weight.at(self.inputs.epoch(context, self.edge.target))

    def __call__(self, context: StepContext) -> Tensor | None:
        """The weighted loss, a scalar."""
        signal = self.fetch(context)
        if signal is None:
            return None
        own = self.own(context)
        if self.columns is not None:
            own, signal = self.shared(own, signal)
        own, signal = beside(own, signal)
        self.seen = (own, signal)
        if not len(own):
            return None  # a batch in which nothing is asked
        if self.temperature is not None and isinstance(own, Tensor):
            signal = softened(context, signal, own, self.temperature)
        loss = self.compute(context, own, signal.value, signal.form, signal.weights, self.given(context))
        weight = self.factor if self.factor is not None else self.weight(context)
        return loss if weight == 1.0 else weight * loss


def beside(own: Any, signal: Signal) -> tuple[Any, Signal]:
    """Both sides, made where the own logits are: an objective need not know of such as are not."""
    if not (isinstance(signal.value, Lazy) and isinstance(own, Tensor) and own.numel() <= LARGE):
        return own, signal
    own, value = faced(own, signal.value)
    return own, Signal(dense(value), signal.form, signal.weights)


def shared_targets(edges: Sequence[Edge], objectives: Mapping[int, Any]) -> dict[int, float]:
    """By flow, the temperature at which its live source's distribution serves several flows to this host."""
    readers: dict[tuple[Any, ...], list[int]] = {}
    for edge in edges:
        temperature = getattr(objectives.get(edge.id), "distribution", None)
        if temperature is not None and edge.live and edge.form == edge.reads == "logits":
            source = (edge.source, edge.stream, edge.output, edge.detach, edge.mode, edge.sees)
            readers.setdefault((*source, temperature), []).append(edge.id)
    return {flow: key[-1] for key, flows in readers.items() if len(flows) > 1 for flow in flows}


def softened(context: StepContext, signal: Signal, own: Tensor, temperature: float) -> Signal:
    """The signal's distribution in place of its logits, computed once for all who read it; itself if it differs.

    It would where a gradient passes, where samples abstain, or where the objective first changes the precision.
    """
    value = signal.value
    if not (isinstance(value, Tensor) and isinstance(own, Tensor)):
        return signal  # logits that are not made yet
    if value.requires_grad or signal.weights is not None or value.dtype != own.dtype or own.dtype.itemsize < 4:
        return signal
    known = context.softened.get((id(signal), temperature))
    if known is None:
        probs = (value if temperature == 1.0 else value / temperature).softmax(-1)
        known = context.softened[id(signal), temperature] = signal, Signal(probs, "probs")  # keeps the id from reuse
    return known[1]


class SpreadTerm(Term):
    """A term over a consensus in space `loss` or `gradient`: every member's loss, by the rule's coefficients."""

    def __init__(
        self, edge: Edge, objective: Objective, own: Callable[[StepContext], Any], inputs: Inputs, consensus: Consensus
    ) -> None:
        super().__init__(edge, objective, own, inputs)
        self.consensus = consensus
        self.members = {e.id: inputs.fetcher(e, edge.target) for e in consensus.node.inputs}

    def __call__(self, context: StepContext) -> Tensor | None:
        """``weight * sum_m loss(own, member m, weights=coefficient_m)``, members in declared order."""
        reader = self.edge.target
        gathered = self.consensus.gather(reader, lambda edge: self.members[edge.id](context))
        if gathered is None:
            return None
        signals, present = gathered
        own, node = self.own(context), self.consensus.node
        if not len(own):
            return None
        facts: dict[str, Any] = {"present": present, **self.inputs.given(context, node, reader)}
        if node.space == "gradient":
            own = dense(own)
            facts["gradients"] = self._gradients(context, own, self.consensus.stack(signals), present)
        facts |= self.consensus.given(lambda edge: self.members[edge.id](context))
        self.inputs.draw(context, self.consensus, reader)
        try:
            look = self._device.type == "cpu" or context.step % guard.LOOK == 0  # elsewhere it makes the device wait
            weights = self.consensus.weigh(signals, facts, look)
        except FAULTS as error:
            rules.attribute_error(self.inputs.host, node.name, error, f"at step {context.step}")
        total: Tensor | None = None
        for edge, signal, weight in zip(node.members, signals, weights, strict=True):
            if signal is None:
                continue
            mine, theirs = self.shared(own, signal) if self.columns is not None else (own, signal)
            mine, theirs = beside(mine, theirs)
            self.seen = mine, Signal(theirs.value, theirs.form, weight if len(weight) == len(theirs.value) else None)
            rows = theirs.value if "spans" in self.edge.needs else mine
            every = weight if len(weight) == len(rows) else None  # one factor for all, between unlike rows
            loss = self.compute(context, mine, theirs.value, "logits", every, self.given(context, edge.source))
            loss = loss if every is not None else loss * weight[0]
            total = loss if total is None else total + loss
        factor = self.weight(context)
        return total if total is None or factor == 1.0 else factor * total

    def _gradients(self, context: StepContext, own: Tensor, stacked: Tensor, present: Tensor | None) -> Tensor:
        """Each member's gradient of its loss at the own logits, ``[M, B, C]``."""
        rows = []
        for index, value in enumerate(stacked):
            leaf = own.detach().requires_grad_()
            weights = None if present is None else present[index].to(own.dtype)
            loss = self.compute(context, leaf, value, "logits", weights, self.given(context))
            rows.append(torch.autograd.grad(loss, leaf)[0])
        return torch.stack(rows)
