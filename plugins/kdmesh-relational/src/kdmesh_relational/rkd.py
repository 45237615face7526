"""Relational distillation: the student lays out a batch as its target does, in distances and in angles.

Park, Kim, Lu and Cho, "Relational Knowledge Distillation", 2019.
"""

from __future__ import annotations

from typing import Literal

import torch
from kdmesh.objectives import Objective, batchmean, refuse_form
from torch import Tensor
from torch.nn import functional as F

from kdmesh_relational._sides import sides


class RKD(Objective):
    """``distance * mean Huber(d_s, d_t) + angle * mean Huber(a_s, a_t)``, Huber with delta 1.

    ``d_ij = ‖h_i - h_j‖ / mu``, mu their mean over pairs of different samples; ``a_ijk`` the cosine of the angle at
    sample j between i and k. ``faithful``: the paper sums over distinct samples, here divided by the number of such
    pairs, ``B (B - 1)``, and triplets, ``B (B - 1) (B - 2)``; `code` divides by B² and B³. Widths may differ. A pair
    weighs as its first sample, a triplet as the one at the angle; those with a silent sample are left out. Memory grows
    with ``B² D``.
    """

    def __init__(self, distance: float = 1.0, angle: float = 2.0, faithful: Literal["paper", "code"] = "paper") -> None:
        super().__init__()
        self.distance, self.angle, self.distinct = distance, angle, faithful == "paper"

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
    ) -> Tensor:
        """Compare hidden signals ``[B, ...]``, flattened to ``[B, D]``."""
        refuse_form(self, form, ("hidden",))
        size = len(student)
        audible = torch.ones(size, dtype=torch.bool, device=student.device) if weights is None else weights != 0
        pairs = audible[:, None] & audible & ~torch.eye(size, dtype=torch.bool, device=student.device)
        (near, turn), (near_t, turn_t) = (_relations(x.flatten(1), pairs) for x in sides(student, target, weights))
        partners, others = (max(size - 1, 1), max(size - 2, 1)) if self.distinct else (size, size)
        distances = batchmean(F.smooth_l1_loss(near, near_t, reduction="none"), weights) / partners
        angles = batchmean(F.smooth_l1_loss(turn, turn_t, reduction="none"), weights) / (partners * others)
        return self.distance * distances + self.angle * angles


def _relations(points: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Distances over their mean ``[B, B]`` and cosines ``[vertex, B, B]``, zero outside ``pairs [B, B]``."""
    apart = torch.where(pairs[..., None], points[None] - points[:, None], 0.0)  # [j, i]: from j to i
    lengths = torch.linalg.vector_norm(apart, dim=-1)
    unit = apart / lengths.masked_fill(lengths == 0, 1.0)[..., None]
    mean = lengths.sum() / pairs.sum().clamp(min=1)
    return lengths / mean.clamp_min(torch.finfo(points.dtype).eps), unit @ unit.transpose(1, 2)
