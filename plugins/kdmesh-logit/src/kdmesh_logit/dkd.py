"""Decoupled KD: what the target says of the true class, and of the others among themselves, each with its own weight.

Zhao, Cui, Song, Qiu and Liang, "Decoupled Knowledge Distillation", 2022.
"""

from __future__ import annotations

import torch
from kdmesh.objectives import Objective, batchmean, comparable, kept, log_probs, possible, probs, refuse_form
from torch import Tensor
from torch.nn import functional as F


class DKD(Objective):
    """``T² (alpha KL(b_t ‖ b_s) + beta KL(o_t ‖ o_s))``, batchmean, at temperature T.

    ``b = (p_y, 1 - p_y)`` is the true class against the rest, ``o`` the distribution over the other classes. The
    classic KL is ``alpha = 1`` with ``beta = 1 - p_y`` of the target. Needs the true classes, as ``labels``. Infinite
    where the target gives mass to a class with a student's logit of -inf.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, t2_scale: bool = True) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.scale = temperature**2 if t2_scale else 1.0

    def forward(
        self,
        student: Tensor,
        target: Tensor,
        *,
        form: str = "logits",
        weights: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare logits ``[B, C]`` with logits, or probabilities at this temperature; ``labels [B]`` int64.

        Raises ValueError without labels.
        """
        refuse_form(self, form, ("logits", "probs"))
        if labels is None:
            raise ValueError("DKD needs the true classes: labels=")
        student, target = comparable(student, target, weights)
        own = F.one_hot(kept(labels, weights), student.shape[-1]).bool()
        absent = probs(target, form, self.temperature) == 0
        student_true, student_rest = _decoupled(
            possible(F.log_softmax(student / self.temperature, dim=-1), absent), own
        )
        target_true, target_rest = _decoupled(log_probs(target, form, self.temperature), own)
        true = F.kl_div(student_true, target_true, reduction="none", log_target=True)
        rest = F.kl_div(student_rest, target_rest, reduction="none", log_target=True)
        return self.scale * (self.alpha * batchmean(true, weights) + self.beta * batchmean(rest, weights))


def _decoupled(logs: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (true class, any other) ``[B, 2]``, and among the others ``[B, C]``, 0 at the true class.

    Both come from logarithms, so that they stay exact where ``1 - p_y`` would round to 0.
    """
    true = logs.masked_fill(~own, 0.0).sum(-1, keepdim=True)
    rest = logs.masked_fill(own, -float("inf"))
    others = rest.logsumexp(-1, keepdim=True)
    return torch.cat([true, others], -1), (rest - others).masked_fill(own, 0.0)
