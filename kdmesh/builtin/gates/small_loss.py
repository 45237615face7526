"""Rows of small loss: where labels are noisy, those are the ones to believe.

Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels", 2018: each of two
networks learns from the rows whose loss is small for the other one, which the mesh names with `of`. Without `of` a
network chooses its own rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdmesh.builtin.gates.offers import SmallLossConfig
from kdmesh.contracts.gate import Gate
from kdmesh.spec.settings import checked_by


@checked_by(SmallLossConfig)
class SmallLoss(Gate):
    """Of the n rows that the flow compares, the k of smallest loss have the factor ``n / k``, all others 0:

    ``k = max(1, int(R(e) n))``, ``R(e) = 1 - forget min(e / epochs, 1)``, in epoch e from 0.

    The factors sum to n: where all rows are compared the loss is the mean over those that are kept. Of equal losses the
    first counts as smaller. Where no row is compared the flow is shut.
    """

    def __init__(self, forget: float = 0.2, epochs: int = 10) -> None:
        super().__init__()
        self.forget, self.epochs = forget, epochs

    def forward(self, *, losses: Tensor, counted: Tensor, epoch: int, **facts: Any) -> Tensor:
        """Return factors ``[B]``."""
        rows = counted.nonzero()[:, 0]
        kept = max(1, int((1 - self.forget * min(epoch / self.epochs, 1.0)) * len(rows)))
        factors = torch.zeros_like(losses)
        factors[rows[losses[rows].argsort(stable=True)[:kept]]] = len(rows) / kept
        return factors
