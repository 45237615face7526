"""Skewed reverse Kullback-Leibler divergence: the target is mixed with the student, so that no ratio explodes.

Ko, Kim, Chen and Yun, "DistiLLM: Towards Streamlined Distillation for Large Language Models", 2024.
"""

from __future__ import annotations

from math import log, log1p

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import Tempered
from kdmesh.builtin.objectives._gradients import Rows, dots, through_softmax
from kdmesh.builtin.objectives._numerics import log_probs
from kdmesh.builtin.objectives.offers import SkewedConfig
from kdmesh.spec.settings import checked_by


@checked_by(SkewedConfig)
class SkewedReverseKL(Tempered):
    """``T² KL(q ‖ m)`` in nats, ``m = α q + (1 - α) p``, target p, student q; batchmean.

    α is ``skew``, 0.1 in the paper; 0 is the reverse KL. Finite whatever classes either side rules out.
    """

    closed_form = True

    def __init__(self, skew: float = 0.1, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__(temperature, t2_scale)
        self.skew = skew

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``q (log q - log m)``."""
        log_m = log_probs(target, form, self.temperature)
        if self.skew != 0:
            log_m = torch.logaddexp(log_q + log(self.skew), log_m + log1p(-self.skew))
        return log_q.exp() * (log_q - log_m)

    def gradient(self, rows: Rows) -> Tensor:
        """``q (a - sum_v q a)`` with ``a = log q - log m - α q / m``."""
        if self.skew == 0:
            return through_softmax(rows.q, rows.log_q.sub_(rows.log_p))
        m = torch.lerp(rows.p, rows.q, self.skew, out=rows.spare).clamp_min_(torch.finfo(rows.q.dtype).tiny)
        ratio = rows.log_q.sub_(torch.log(m, out=rows.log_p))
        losses = dots(rows.q, ratio)
        through_softmax(rows.q, ratio.addcdiv_(rows.q, m, value=-self.skew))
        return losses
