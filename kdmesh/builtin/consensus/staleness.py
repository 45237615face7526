"""Weights by age: the longer the party of a source has been away, the less its last answers count.

Xie, Koyejo and Gupta, "Asynchronous Federated Optimization", 2019 (arXiv 1903.03934). Their server mixes in a model of
t - tau updates ago with a share that falls by the polynomial ``(t - tau + 1)^-a``; here it weighs answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.builtin.consensus._base import present_of
from kdmesh.builtin.consensus.offers import StalenessConfig
from kdmesh.contracts.rule import Rule, weighted_sum
from kdmesh.spec.settings import checked_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@checked_by(StalenessConfig)
class Staleness(Rule):
    """``w_m = (1 + age_m)^-a / sum_k (1 + age_k)^-a`` over the present sources, a the exponent.

    Where nobody is away all have the same say. The order of sources changes rounding only.
    """

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(
        self,
        values: Tensor,
        *,
        logits: Tensor,
        labels: Tensor | None = None,
        present: Tensor | None = None,
        age: Sequence[int] = (),
    ) -> Tensor:
        """Sum ``values [M, B, C]`` by their weights, in declared order; without an ``age`` for each all are as new."""
        say = values.new_tensor([(1.0 + one) ** -self.exponent for one in age or (0,) * len(values)])
        shares = say[:, None] * present_of(values, present)
        total = shares.sum(0)
        return weighted_sum(values, shares / torch.where(total > 0, total, 1.0))
