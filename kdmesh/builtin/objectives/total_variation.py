"""Total variation distance between student and target: bounded and symmetric, so that no class dominates.

Wen, Li, Du and Mou, "f-Divergence Minimization for Sequence-Level Knowledge Distillation", 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import Tempered
from kdmesh.builtin.objectives._gradients import Rows, through_softmax
from kdmesh.builtin.objectives._numerics import probs


class TotalVariation(Tempered):
    """``T² ½ sum_c |p_c - q_c|``, target p, student q; batchmean. Between 0 and 1 before the scale."""

    closed_form = True

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``|p - q| / 2``."""
        return (probs(target, form, self.temperature) - log_q.exp()).abs() / 2

    def gradient(self, rows: Rows) -> Tensor:
        """``q (a - sum_v q a)`` with ``a = sign(q - p) / 2``."""
        apart = torch.sub(rows.q, rows.p, out=rows.spare)
        losses = torch.linalg.vector_norm(apart, 1, dim=-1) / 2
        through_softmax(rows.q, apart.sign_().div_(2))
        return losses
