"""Generalised Jensen-Shannon divergence, between forward and reverse KL.

Agarwal, Vieillard, Zhou, Stanczyk, Ramos, Geist and Bachem, "On-Policy Distillation of Language Models: Learning from
Self-Generated Mistakes", 2023.
"""

from __future__ import annotations

from math import log, log1p

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import Tempered
from kdmesh.builtin.objectives._gradients import Rows, dots, logarithm, through_softmax
from kdmesh.builtin.objectives._numerics import log_probs
from kdmesh.builtin.objectives.forward_kl import forward_gradient
from kdmesh.builtin.objectives.offers import JSDConfig
from kdmesh.spec.settings import checked_by


@checked_by(JSDConfig)
class JSD(Tempered):
    """``T² (β KL(p ‖ m) + (1 - β) KL(q ‖ m))`` in nats, ``m = (1 - β) q + β p``, target p, student q; batchmean.

    This is TRL's convention. As there, β = 0 is the forward KL and β = 1 the reverse KL, and that is a jump: the
    formula itself goes to 0 at both ends (over β or 1 - β it goes to those divergences). β = 0.5 is symmetric.

    Finite whatever classes either side rules out; the ends are as :class:`ForwardKL` and :class:`ReverseKL`.
    """

    closed_form = True

    def __init__(self, beta: float = 0.5, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__(temperature, t2_scale)
        self.beta, self.unbounded = beta, beta == 0

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``β p (log p - log m) + (1 - β) q (log q - log m)``, or a single divergence at the ends."""
        beta, log_p = self.beta, log_probs(target, form, self.temperature)
        p, q = log_p.exp() if form == "logits" else target, log_q.exp()
        if beta == 0:
            return p * (log_p - log_q)
        if beta == 1:
            return q * (log_q - log_p)
        log_m = torch.logaddexp(log_q + log1p(-beta), log_p + log(beta))
        return beta * (p * (log_p - log_m)) + (1 - beta) * (q * (log_q - log_m))

    def gradient(self, rows: Rows) -> Tensor:
        """``(1 - β) q (log q - log m - KL(q ‖ m))``: what passes through m adds up to a constant."""
        beta = self.beta
        if beta == 0:
            return forward_gradient(rows)
        if beta == 1:
            return through_softmax(rows.q, rows.log_q.sub_(rows.log_p))
        log_m = logarithm(torch.lerp(rows.q, rows.p, beta, out=rows.spare), out=rows.spare)
        of_p = dots(rows.p, rows.log_p.sub_(log_m))
        of_q = through_softmax(rows.q, rows.log_q.sub_(log_m))
        rows.q.mul_(1 - beta)
        return beta * of_p + (1 - beta) * of_q
