"""Skewed forward Kullback-Leibler divergence: the student is mixed with its target first, so that no ratio explodes.

Ko, Kim, Chen and Yun, "DistiLLM: Towards Streamlined Distillation for Large Language Models", 2024.
"""

from __future__ import annotations

from math import log, log1p

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import Tempered
from kdmesh.builtin.objectives._gradients import Rows, dots, through_softmax
from kdmesh.builtin.objectives._numerics import log_probs
from kdmesh.builtin.objectives.forward_kl import forward_gradient
from kdmesh.builtin.objectives.offers import SkewedConfig
from kdmesh.spec.settings import checked_by


@checked_by(SkewedConfig)
class SkewedKL(Tempered):
    """``T² KL(p ‖ m)`` in nats, ``m = α p + (1 - α) q``, target p, student q; batchmean.

    α is ``skew``, 0.1 in the paper; 0 is the forward KL. The published code leaves out the target's entropy, which
    changes no gradient. Finite whatever classes the student rules out, but with α = 0.
    """

    closed_form = True

    def __init__(self, skew: float = 0.1, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__(temperature, t2_scale)
        self.skew, self.unbounded = skew, skew == 0

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``p (log p - log m)``."""
        log_p = log_probs(target, form, self.temperature)
        p = log_p.exp() if form == "logits" else target
        if self.skew == 0:
            return p * (log_p - log_q)
        return p * (log_p - torch.logaddexp(log_p + log(self.skew), log_q + log1p(-self.skew)))

    def gradient(self, rows: Rows) -> Tensor:
        """``q (a - sum_v q a)`` with ``a = -(1 - α) p / m``."""
        if self.skew == 0:
            return forward_gradient(rows)
        m = torch.lerp(rows.q, rows.p, self.skew, out=rows.spare).clamp_min_(torch.finfo(rows.q.dtype).tiny)
        losses = dots(rows.p, rows.log_p.sub_(torch.log(m, out=rows.log_q)))
        through_softmax(rows.q, rows.p.div_(m).mul_(self.skew - 1))
        return losses
