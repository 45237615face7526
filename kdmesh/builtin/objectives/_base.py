"""The interface of an objective: the engine calls nothing else, and it works in anyone's own loop."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdmesh.builtin.objectives._numerics import comparable, tempered


class Objective(nn.Module):
    """A loss between a student's own signal and a target.

    ``forward(student, target, *, form="logits", weights=None) -> scalar``

    - ``student``: logits ``[B, C]`` (or a hidden signal ``[B, ...]``), with gradient.
    - ``target``: in one of the ``forms`` its offer names: ``logits [B, C]``, ``probs [B, C]`` (already at this
      objective's temperature; never re-tempered), ``labels [B]`` (int64), ``hidden [B, ...]``. Not detached here: who
      draws the flow decides (`detach`).
    - ``weights``: per-sample factors ``[B]`` or None. The loss is then ``sum_i w_i l_i / B``; samples of weight 0
      contribute neither to it nor to a gradient, whatever their values (NaN and infinite ones included).

    Reduction is `batchmean` throughout: sum over classes, mean over samples. Every objective of its own file states its
    formula. With ``weights=None`` an objective must use the plain expression of its docstring, bit for bit.
    """

    def setup(self, student: torch.Size, target: torch.Size, **facts: Tensor | None) -> None:
        """Build trainable adapters for these shapes (without the batch axis). Called once, before training, seeded.

        ``facts``: what the offer ``needs``, of the whole stream: ``labels [N]``, ``ids [N]``.
        """

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "logits", weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss, a scalar of the student's dtype and at least float32."""
        raise NotImplementedError(f"{type(self).__name__} must compute a loss")  # the one abstract method


class Tempered(Objective):
    """An objective between distributions: both sides at ``temperature`` T, the loss times T² with ``t2_scale``.

    The gradient of a tempered loss shrinks as 1/T²; ``t2_scale`` undoes that, so one weight serves every temperature.
    A subclass writes :meth:`elements`. Targets in form `probs` are at T already and used as they are.
    """

    forms: ClassVar[tuple[str, ...]] = ("logits", "probs")

    def __init__(self, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.scale = temperature**2 if t2_scale else 1.0

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "logits", weights: Tensor | None = None
    ) -> Tensor:
        """Compare logits ``[B, ..., C]`` with a target of the same shape: ``batchmean`` times the scale."""
        refuse_form(self, form, self.forms)
        student, target = comparable(student, target, weights)
        log_q = F.log_softmax(tempered(student, self.temperature), dim=-1)
        loss = batchmean(self.elements(log_q, target, form), weights)
        return loss if self.scale == 1.0 else loss * self.scale

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """Return the summands ``[B, ..., C]``, given the student's log-probabilities at T."""
        raise NotImplementedError(f"{type(self).__name__} must compare distributions")


def batchmean(elements: Tensor, weights: Tensor | None) -> Tensor:
    """Sum ``elements [B, ...]`` over all but the batch, weigh samples, and divide by B.

    With no weights this is ``elements.sum() / B``, the same expression as torch's ``reduction="batchmean"``.
    """
    if weights is None:
        return elements.sum() / elements.shape[0]
    per_sample = elements.flatten(1).sum(1) if elements.dim() > 1 else elements
    return torch.where(weights != 0, per_sample * weights.to(per_sample.dtype), 0.0).sum() / elements.shape[0]


def elementmean(elements: Tensor, weights: Tensor | None) -> Tensor:
    """Average ``elements [B, ...]`` over all axes: ``batchmean`` over the number of elements of a sample."""
    if weights is None:
        return elements.mean()
    return batchmean(elements.flatten(1).mean(1), weights)


def refuse_form(objective: Any, form: str, known: tuple[str, ...]) -> None:
    """Raise for a target form that an objective does not read."""
    if form not in known:
        raise ValueError(f"{type(objective).__name__} reads {' or '.join(known)}, not {form}")
