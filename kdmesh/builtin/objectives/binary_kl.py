"""Kullback-Leibler divergence label by label: each label is a distribution over two outcomes.

Yang, Xie, Zong, Feng, Niu, Sugiyama and Huang, "Multi-Label Knowledge Distillation", ICCV 2023, whose multi-label
logits distillation takes a problem of K labels as K binary ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives._base import batchmean, refuse_form
from kdmesh.builtin.objectives._chunked import lazily
from kdmesh.builtin.objectives._numerics import comparable, floored, tempered
from kdmesh.builtin.objectives.offers import BinaryKLConfig
from kdmesh.contracts.objective import Objective
from kdmesh.signals.lazy import Lazy
from kdmesh.spec.settings import checked_by


@checked_by(BinaryKLConfig)
class BinaryKL(Objective):
    """``T² sum_k p_k log (p_k / q_k) + (1 - p_k) log ((1 - p_k) / (1 - q_k))`` in nats, averaged over samples.

    Target ``p = sigmoid(t / T)`` and student ``q = sigmoid(s / T)``; in form `marginals` the target is p itself,
    already at T. ``t2_scale: false`` leaves out T². The gradient by ``s`` is ``T (q - p)`` of each sample, over B. 0
    log 0 is 0; where the student rules out what the target holds for possible (a logit of -inf or inf), that costs
    much, not infinitely much.
    """

    def __init__(self, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.scale = temperature**2 if t2_scale else 1.0

    def forward(
        self, student: Tensor | Lazy, target: Tensor | Lazy, *, form: str = "logits", weights: Tensor | None = None
    ) -> Tensor:
        """Compare logits ``[B, K]`` with logits or probabilities ``[B, K]``."""
        refuse_form(self, form, ("logits", "marginals"))
        if isinstance(student, Lazy) or isinstance(target, Lazy):
            return lazily(self, student, target, form=form, weights=weights)
        student, target = comparable(student, target, weights)
        s = tempered(student, self.temperature)
        if form == "logits":
            target = tempered(target, self.temperature)
        loss = batchmean(_plain(s, target, form), weights) if _cheap(s) else None
        if loss is None or not math.isfinite(loss.item()):  # reading a number is cheaper than a guard, which few need
            loss = batchmean(_guarded(s, target, form), weights)
        return loss if self.scale == 1.0 else loss * self.scale


def _cheap(s: Tensor) -> bool:
    """Whether a number can be read without waiting for it."""
    return s.device.type == "cpu" and not torch.compiler.is_compiling()


def _plain(s: Tensor, target: Tensor, form: str) -> Tensor:
    """The summands of finite logits: the cross-entropy with the target, as torch has it, without the target's own."""
    if form == "logits":
        p = target.sigmoid()
        return _crossed(s, p) - _crossed(target, p)
    other = 1 - target
    return _crossed(s, target) + torch.xlogy(target, _above(target)) + torch.xlogy(other, _above(other))


def _crossed(z: Tensor, p: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(z, p, reduction="none")


def _guarded(s: Tensor, target: Tensor, form: str) -> Tensor:
    """The summands, where 0 log 0 is 0 and what the student rules out is finite."""
    if form == "logits":
        p, other = target.sigmoid(), (-target).sigmoid()  # 1 - p would round to 0 where p is near 1
        own = p * floored(F.logsigmoid(target)) + other * floored(F.logsigmoid(-target))
    else:
        p, other = target, 1 - target
        own = torch.xlogy(p, _above(p)) + torch.xlogy(other, _above(other))
    return own - p * floored(F.logsigmoid(s)) - other * floored(F.logsigmoid(-s))


def _above(p: Tensor) -> Tensor:
    """Probabilities that have a logarithm, and a finite gradient of it."""
    return p.clamp_min(torch.finfo(p.dtype).tiny)
