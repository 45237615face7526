"""Geometric median: the point nearest to all sources together.

Weiszfeld, "Sur le point pour lequel la somme des distances de n points donnés est minimum", 1937; smoothed as by
Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import normalised, present_of, silenced, uniform
from kdmesh.builtin.consensus.offers import GeometricMedianConfig
from kdmesh.contracts.rule import Rule, weighted_sum
from kdmesh.spec.settings import checked_by


@checked_by(GeometricMedianConfig)
class GeometricMedian(Rule):
    """``argmin_x sum_m ‖v_m - x‖₂`` per sample, by a fixed number of Weiszfeld's steps from the mean.

    A step is the mean weighted by ``1 / max(‖v_m - x‖, eps)``. The number of steps does not depend on the data, so the
    samples of a batch do not influence each other. In space `probs` the result is clamped and divided by its sum. The
    order of sources changes rounding only. Gradients go through all steps. In space `logits` a column that a present
    source rules out (``-inf``) is ruled out, and tells of no distance.
    """

    def __init__(self, iterations: int = 32, eps: float = 1e-6) -> None:
        super().__init__()
        self.iterations = iterations
        self.eps = eps

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return distributions or logits ``[B, C]``, of half precision float32: ``eps`` is too small for it."""
        values = values.float() if values.element_size() < 4 else values
        mask, points = present_of(values, present), silenced(values, present)
        ruled_out = points.isneginf().any(0)
        points = points.masked_fill(ruled_out, 0.0)
        centre = weighted_sum(points, uniform(points, present))
        for _ in range(self.iterations):
            pull = mask / torch.linalg.vector_norm(points - centre, dim=-1).clamp_min(self.eps)
            centre = weighted_sum(points, pull / pull.sum(0).clamp_min(torch.finfo(pull.dtype).tiny))
        return normalised(centre) if self.space == "probs" else centre.masked_fill(ruled_out, -torch.inf)
