"""Forward Kullback-Leibler divergence, the loss of classic distillation.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import Tempered
from kdmesh.builtin.objectives._gradients import Rows, expected
from kdmesh.builtin.objectives._numerics import probs

NONE = 0  # torch's number of no reduction: what F.kl_div calls, without its bookkeeping


class ForwardKL(Tempered):
    """``T² KL(p ‖ q)`` in nats, with target ``p = softmax(t / T)`` and student ``q = softmax(s / T)``; batchmean.

    Without weights it is, bit for bit, ``F.kl_div(F.log_softmax(s / T, -1), F.softmax(t / T, -1),
    reduction="batchmean") * T**2``. Where gradients pass through the target (`detach: false`) its logarithm is clamped:
    a probability that underflows to 0 would give ``kl_div`` a NaN gradient.

    Infinite where the target gives mass to a class with a student's logit of -inf.
    """

    closed_form = True

    unbounded = True

    def __init__(self, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__(temperature, t2_scale)
        self.distribution = temperature

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``p (log p - log q)``."""
        p = probs(target, form, self.temperature)
        if p.requires_grad:
            return torch.xlogy(p, p.clamp_min(torch.finfo(p.dtype).tiny)) - p * log_q
        return torch.kl_div(log_q, p, reduction=NONE)

    def gradient(self, rows: Rows) -> Tensor:
        """``q sum_v p - p``."""
        return forward_gradient(rows)


def forward_gradient(rows: Rows) -> Tensor:
    """The gradient of ``KL(p ‖ q)``, of an unbounded objective."""
    losses = expected(rows.p, rows.log_p.sub_(rows.log_q))
    rows.q.mul_(rows.p.sum(-1, keepdim=True)).sub_(rows.p)
    return losses
