"""The losses that reach one agent: one term per flow, in declared order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from kdmesh.errors import RunFailed
from kdmesh.signals import Signal
from kdmesh.spec import Ramp

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.agents.consensus import Consensus
    from kdmesh.agents.lesson import Frame, Lesson
    from kdmesh.builtin.objectives._base import Objective
    from kdmesh.graph.edges import Edge


NOTHING: dict[str, Tensor | None] = {}


class Term:
    """``weight * objective(own signal, target)`` of one flow; None in a step in which nothing is known yet."""

    def __init__(self, edge: Edge, objective: Objective, own: Callable[[Frame], Tensor], lesson: Lesson) -> None:
        self.edge, self.objective, self.own, self.lesson = edge, objective, own, lesson
        self.fetch = lesson.fetcher(edge, edge.target)
        self.factor = None if isinstance(edge.weight, Ramp) else edge.weight
        self.compute = objective.forward  # no module hooks on the hot path
        self.seen: tuple[Tensor, Signal] | None = None  # of the last step, for the report of a broken loss

    def given(self, frame: Frame) -> dict[str, Tensor | None]:
        """What else of the batch the objective is called with."""
        edge = self.edge
        return self.lesson.facts(frame, edge.target, edge.stream, edge.needs) if edge.needs else NOTHING

    def blame(self, error: Exception, step: int) -> NoReturn:
        """Raise, with whose objective it is, what it raised."""
        assert self.edge.objective is not None
        doing, where = f"to compute at step {step} on the flow {self.edge}", self.edge.where
        self.lesson.host.registry.blame("objectives", self.edge.objective.name, error, doing, where)

    def weight(self, frame: Frame) -> float:
        """The flow's weight in this epoch of its lesson."""
        if self.factor is not None:
            return self.factor
        assert isinstance(self.edge.weight, Ramp)
        return self.edge.weight.at(self.lesson.epoch(frame, self.edge.target))

    def __call__(self, frame: Frame) -> Tensor | None:
        """The weighted loss, a scalar."""
        signal = self.fetch(frame)
        if signal is None:
            return None
        own = self.own(frame)
        self.seen = (own, signal)
        loss = self.compute(own, signal.value, form=signal.form, weights=signal.weights, **self.given(frame))
        weight = self.factor if self.factor is not None else self.weight(frame)
        return loss if weight == 1.0 else weight * loss


class SpreadTerm(Term):
    """A term over a consensus in space `loss` or `gradient`: every member's loss, by the rule's coefficients."""

    def __init__(
        self, edge: Edge, objective: Objective, own: Callable[[Frame], Tensor], lesson: Lesson, consensus: Consensus
    ) -> None:
        super().__init__(edge, objective, own, lesson)
        self.consensus = consensus
        self.members = {e.id: lesson.fetcher(e, edge.target) for e in consensus.node.inputs}

    def __call__(self, frame: Frame) -> Tensor | None:
        """``weight * sum_m loss(own, member m, weights=coefficient_m)``, members in declared order."""
        reader = self.edge.target
        gathered = self.consensus.gather(reader, lambda edge: self.members[edge.id](frame))
        if gathered is None:
            return None
        signals, present = gathered
        own, node = self.own(frame), self.consensus.node
        stacked = self.consensus.stack(signals)
        more: dict[str, Any] = {}
        if node.needs_labels:
            more["labels"] = self.lesson.labels(frame, reader, node.stream)
        if node.space == "gradient":
            more["gradients"] = self._gradients(frame, own, stacked, present)
        more |= self.consensus.given(lambda edge: self.members[edge.id](frame))
        try:
            weights = self.consensus.rule.weights(stacked, present=present, **more)
        except Exception as error:
            self.lesson.host.blame_rule(node.name, error, f"at step {frame.step}")
        self.seen = (own, Signal(stacked))
        total: Tensor | None = None
        for value, weight in zip(stacked, weights, strict=True):
            loss = self.compute(own, value, form="logits", weights=weight, **self.given(frame))
            total = loss if total is None else total + loss
        factor = self.weight(frame)
        return total if total is None or factor == 1.0 else factor * total

    def _gradients(self, frame: Frame, own: Tensor, stacked: Tensor, present: Tensor | None) -> Tensor:
        """Each member's gradient of its loss at the own logits, ``[M, B, C]``."""
        rows = []
        for index, value in enumerate(stacked):
            leaf = own.detach().requires_grad_()
            weights = None if present is None else present[index].to(own.dtype)
            loss = self.compute(leaf, value, form="logits", weights=weights, **self.given(frame))
            rows.append(torch.autograd.grad(loss, leaf)[0])
        return torch.stack(rows)


def refuse_broken(losses: list[tuple[Term, Tensor]], step: int) -> None:
    """Raise for the first loss that is not finite, with the ranges of what it compared."""
    for term, loss in losses:
        value = float(loss.detach())
        if math.isfinite(value):
            continue
        ranges = ""
        if term.seen is not None:
            own, signal = term.seen
            ranges = f"; its own signal is {_range(own)}, the target {_range(signal.value)}"
        raise RunFailed(
            f"the loss became {value} at step {step} on the flow {term.edge}{ranges}",
            where=f"agents.{term.edge.target}",
            instead="a smaller learning rate, `clip`, or another temperature; the last checkpoint is kept",
        )


def _range(value: Tensor) -> str:
    value = value.detach().float()
    finite = value[value.isfinite()]
    broken = value.numel() - finite.numel()
    text = f"in [{finite.min().item():.4g}, {finite.max().item():.4g}]" if finite.numel() else "nowhere finite"
    return f"{text} with {broken} values not finite" if broken else text
