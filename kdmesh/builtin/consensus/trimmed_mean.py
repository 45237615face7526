"""Trimmed mean: the extremes of each class are left out before averaging.

Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", 2018,
for gradients; here for predictions.
"""

from __future__ import annotations

from torch import Tensor

from kdmesh.builtin.consensus._base import normalised
from kdmesh.builtin.consensus._trim import trimmed
from kdmesh.builtin.consensus.offers import TrimmedMeanConfig
from kdmesh.contracts.rule import Rule
from kdmesh.spec.settings import checked_by


@checked_by(TrimmedMeanConfig)
class TrimmedMean(Rule):
    """Per class, drop ``floor(trim * n)`` of the n present sources at each end and average the rest.

    ``trim`` below 0.5 always leaves one. In space `probs` the result is divided by its sum (uniform if that is 0); in
    space `logits` it stays as it is. Exactly invariant to the order of sources. Gradients go to the values kept.
    """

    def __init__(self, trim: float = 0.25) -> None:
        super().__init__()
        self.trim = trim
        self._settings = TrimmedMeanConfig(trim=trim)

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return distributions or logits ``[B, C]``."""
        rest = trimmed(values, present, [self._settings.cut(n) for n in range(values.shape[0] + 1)])
        return normalised(rest) if self.space == "probs" else rest
