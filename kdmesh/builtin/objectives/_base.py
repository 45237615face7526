"""What objectives share: comparing tempered distributions, and reductions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdmesh.builtin.objectives._chunked import lazily
from kdmesh.builtin.objectives._gradients import Rows
from kdmesh.builtin.objectives._numerics import comparable, floored, possible, probs, tempered
from kdmesh.builtin.objectives.offers import TemperedConfig
from kdmesh.contracts.objective import Objective
from kdmesh.signals.lazy import Lazy
from kdmesh.spec.settings import checked_by


@checked_by(TemperedConfig)
class Tempered(Objective):
    """An objective between distributions: both sides at ``temperature`` T, the loss times T² with ``t2_scale``.

    The gradient of a tempered loss shrinks as 1/T²; ``t2_scale`` undoes that, so one weight serves every temperature.
    Classes with a logit of -inf have probability 0, and 0 log 0 is 0, on either side. A row of nothing else is no
    distribution: the loss is NaN. Where ``unbounded``, the loss is infinite if the target gives mass to a class that
    the student rules out so (its gradient is then that of the plain expression); a run stops at such a loss.

    A subclass writes :meth:`elements`; to be fast over a large vocabulary it also writes :meth:`gradient` and sets
    ``closed_form = True``. Targets in form `probs` are at T already and used as they are.
    """

    forms: ClassVar[tuple[str, ...]] = ("logits", "probs")
    unbounded: bool = False
    """Whether a log q of -inf counts where p > 0. If not, :meth:`elements` and :meth:`gradient` get finite numbers."""

    closed_form: ClassVar[bool] = False
    """Whether :meth:`gradient` is that of :meth:`elements`. A subclass with other elements begins at False."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "closed_form" in vars(cls):
            return
        if {"gradient", "elements"} <= vars(cls).keys():
            raise TypeError(
                f"{cls.__name__} has a gradient: write `closed_form = True`, or False to leave it to autograd"
            )
        base = next(kind for kind in cls.__mro__[1:] if issubclass(kind, Tempered))
        cls.closed_form = base.closed_form and cls.elements is base.elements

    def __init__(self, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.scale = temperature**2 if t2_scale else 1.0

    def forward(
        self, student: Tensor | Lazy, target: Tensor | Lazy, *, form: str = "logits", weights: Tensor | None = None
    ) -> Tensor:
        """Compare logits ``[B, ..., C]`` with a target of the same shape: ``batchmean`` times the scale."""
        refuse_form(self, form, self.forms)
        if isinstance(student, Lazy) or isinstance(target, Lazy):
            return lazily(self, student, target, form=form, weights=weights)
        student, target = comparable(student, target, weights)
        log_q = tempered(student, self.temperature).log_softmax(-1)
        plain = log_q.device.type == "cpu" and not torch.compiler.is_compiling()
        loss = batchmean((self.elements if plain else self._guarded)(log_q, target, form), weights)
        if plain and not math.isfinite(loss.item()):  # reading a number is cheaper than a guard, which few need
            loss = batchmean(self._guarded(log_q, target, form), weights)
        return loss if self.scale == 1.0 else loss * self.scale

    def _guarded(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """:meth:`elements`, where 0 log 0 is 0."""
        if not self.unbounded:
            return self.elements(floored(log_q), target, form)
        p = probs(target, form, self.temperature)
        if self.distribution is not None:  # either is the same, and this one is made
            target, form = p, "probs"
        return self.elements(possible(log_q, p == 0), target, form)

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """Return the summands ``[B, ..., C]``, given the student's log-probabilities at T."""
        raise NotImplementedError(f"{type(self).__name__} must compare distributions")

    def gradient(self, rows: Rows) -> Tensor:
        """Return each row's loss ``[r]`` without the scale, and leave in ``rows.q`` its gradient.

        The gradient is that by the student's logits over T. With ``a = dl/dq`` it is ``q (a - sum_v q a)``.
        """
        raise NotImplementedError(f"{type(self).__name__} leaves its gradient to autograd")

    def loss_and_gradient(
        self, logits: Tensor, target: Tensor, form: str, factors: Tensor, spare: Tensor, **facts: Tensor | None
    ) -> Tensor:
        """As :meth:`Objective.loss_and_gradient`; in place, by :meth:`gradient`, if ``closed_form``."""
        if not self.closed_form:
            return super().loss_and_gradient(logits, target, form, factors, spare, **facts)
        rows = Rows.of(logits, target, form, self.temperature, spare, finite=not self.unbounded)
        losses = self.gradient(rows)
        torch.mul(rows.q, factors[:, None] * (self.scale / self.temperature), out=logits)
        return torch.dot(losses, factors) * self.scale


def batchmean(elements: Tensor, weights: Tensor | None) -> Tensor:
    """Sum ``elements [B, ...]`` over all but the batch, weigh samples, and divide by B.

    With no weights this is ``elements.sum() / B``, the same expression as torch's ``reduction="batchmean"``. No samples
    give 0.
    """
    if weights is None:
        return elements.sum() / (elements.shape[0] or 1)
    per_sample = elements.flatten(1).sum(1) if elements.dim() > 1 else elements
    return torch.where(weights != 0, per_sample * weights.to(per_sample.dtype), 0.0).sum() / (elements.shape[0] or 1)


def elementmean(elements: Tensor, weights: Tensor | None) -> Tensor:
    """Average ``elements [B, ...]`` over all axes: ``batchmean`` over the number of elements of a sample."""
    if weights is None:
        return elements.mean() if len(elements) else elements.sum()
    return batchmean(elements.flatten(1).mean(1), weights)


def refuse_form(objective: Any, form: str, known: tuple[str, ...]) -> None:
    """Raise for a target form that an objective does not read."""
    if form not in known:
        raise ValueError(f"{type(objective).__name__} reads {' or '.join(known)}, not {form}")
