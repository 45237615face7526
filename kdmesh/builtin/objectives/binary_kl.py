"""Kullback-Leibler divergence label by label: each label is a distribution over two outcomes.

Yang, Xie, Zong, Feng, Niu, Sugiyama and Huang, "Multi-Label Knowledge Distillation", ICCV 2023, whose multi-label
logits distillation takes a problem of K labels as K binary ones.
"""

from __future__ import annotations

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
            t = tempered(target, self.temperature)
            p, other = t.sigmoid(), (-t).sigmoid()  # 1 - p would round to 0 where p is near 1
            own = p * floored(F.logsigmoid(t)) + other * floored(F.logsigmoid(-t))
        else:
            p, other = target, 1 - target
            own = torch.xlogy(p, _above(p)) + torch.xlogy(other, _above(other))
        loss = batchmean(own - p * floored(F.logsigmoid(s)) - other * floored(F.logsigmoid(-s)), weights)
        return loss if self.scale == 1.0 else loss * self.scale


def _above(p: Tensor) -> Tensor:
    """Probabilities that have a logarithm, and a finite gradient of it."""
    return p.clamp_min(torch.finfo(p.dtype).tiny)
