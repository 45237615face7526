"""Coordinate median: fewer than half of the sources, however wrong, cannot pull a class beyond the others' range.

Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", 2018,
for gradients; here for predictions.
"""

from __future__ import annotations

from torch import Tensor

from kdmesh.builtin.consensus._base import normalised
from kdmesh.builtin.consensus._trim import trimmed
from kdmesh.contracts.rule import Rule


class Median(Rule):
    """The median of the present sources for each class, the mean of the two middle ones if they are even in number.

    In space `probs` it is divided by its sum (uniform if every median is 0); in `logits` and `marginals` it stays as it
    is. Exactly invariant to the order of sources. Gradients go to the middle values.
    """

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return distributions or logits ``[B, C]``."""
        middle = trimmed(values, present, [max(n - 1, 0) // 2 for n in range(values.shape[0] + 1)])
        return normalised(middle) if self.space == "probs" else middle
