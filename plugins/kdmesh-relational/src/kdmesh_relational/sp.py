"""Similarity-preserving distillation: samples that are alike to the target are alike to the student.

Tung and Mori, "Similarity-Preserving Knowledge Distillation", 2019.
"""

from __future__ import annotations

from kdmesh.objectives import Objective, batchmean, refuse_form
from torch import Tensor
from torch.nn import functional as F

from kdmesh_relational._sides import sides


class SP(Objective):
    """``‖G_t - G_s‖² / B²`` with ``G`` the Gram matrix ``h hᵀ`` of the batch, each row divided by its norm.

    ``h`` is the signal flattened to ``[B, D]``; D may differ between the sides. Row i weighs as its sample; a silent
    sample is a partner to no other. Depends on the batch, by its nature. Libraries weigh it by 3000: here the
    flow's weight.
    """

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
    ) -> Tensor:
        """Compare hidden signals ``[B, ...]``."""
        refuse_form(self, form, ("hidden",))
        similar, wanted = (_similarity(side.flatten(1)) for side in sides(student, target, weights))
        return batchmean((wanted - similar).square(), weights) / len(student)


def _similarity(points: Tensor) -> Tensor:
    """``[B, B]``, every row of norm 1."""
    return F.normalize(points @ points.T)
