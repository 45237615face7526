"""Eigenvector filter: who lies far out in the direction in which sources differ most is left out, twice.

Chang, Shejwalkar, Shokri and Houmansadr, "Cronus: Robust and Heterogeneous Collaborative Learning with Black-Box
Knowledge Transfer", 2019, with the filter of Diakonikolas, Kamath, Kane, Li, Moitra and Stewart, "Being Robust (in High
Dimensions) Can Be Practical", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import present_of, silenced
from kdmesh.builtin.consensus.offers import EigenFilterConfig
from kdmesh.contracts.rule import Rule, weighted_sum
from kdmesh.spec.settings import checked_by

PASSES = 2


@checked_by(EigenFilterConfig)
class EigenFilter(Rule):
    """Twice per sample, drop the ``floor(share * n / 2)`` of the n present sources with the largest
    ``|<p_m - mean, v>|``, v being the first eigenvector of their covariance; then the mean of the rest.

    ``share`` is the share of sources that may lie. The order of sources changes rounding only, but where two are as far
    out, or two directions differ as much. Gradients go to the sources that are kept.

    Lies among the honest answers it does not see, and a majority of liars it takes for the honest.
    """

    def __init__(self, share: float = 0.4) -> None:
        super().__init__()
        self.share = share
        self._settings = EigenFilterConfig(share=share)

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return distributions ``[B, C]``."""
        kept = present_of(values, present)
        cuts = torch.tensor([self._settings.cut(n) for n in range(len(values) + 1)], device=values.device)
        cut = cuts[kept.sum(0)]
        points = silenced(values, present).detach()
        points = points.float() if points.element_size() < 4 else points  # there are no eigenvectors of half precision
        for _ in range(PASSES if int(cut.max()) else 0):
            ranks = deviations(points, kept).masked_fill(~kept, -1.0).argsort(0, descending=True).argsort(0)
            kept = kept & (ranks >= cut)
        return weighted_sum(values, kept.to(values.dtype) / kept.sum(0).clamp(min=1))


def deviations(points: Tensor, kept: Tensor) -> Tensor:
    """How far ``points [M, B, C]``, where ``kept``, lie from their mean along the first eigenvector, ``[M, B]``.

    That of the M x M products of what is centred, which are few where there are many classes: its entries times the
    root of the eigenvalue are the projections.
    """
    mean = weighted_sum(points, kept.to(points.dtype) / kept.sum(0).clamp(min=1))
    centred = torch.where(kept[..., None], points - mean, 0.0).transpose(0, 1)  # [B, M, C]
    return torch.linalg.eigh(centred @ centred.mT).eigenvectors[..., -1].abs().T
