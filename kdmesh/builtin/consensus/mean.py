"""Mean: every source has the same weight.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, distil an ensemble by its arithmetic
(space `probs`) or geometric (space `logits`) mean.
"""

from __future__ import annotations

from torch import Tensor

from kdmesh.builtin.consensus._base import uniform
from kdmesh.contracts.rule import Rule


class Mean(Rule):
    """``w_m = 1 / n`` over the n present sources. The order of sources changes rounding only."""

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """``(v_1 + v_2 + ... + v_M) / M``, summed in declared order; with absent sources the weighted sum."""
        if present is not None:
            return super().forward(values, logits=logits, labels=labels, present=present)
        total, *others = values.unbind(0)
        for value in others:
            total = total + value
        return total / len(values)

    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Equal weights ``[M, B]``."""
        return uniform(logits, present)
