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
    """The ``k = max(1, int(R(e) B))`` rows of smallest loss have the factor ``B / k``, the others 0; in epoch e from 0

    ``R(e) = 1 - forget min(e / epochs, 1)``.

    The factors sum to B: the loss is the mean over the rows that are kept. Of equal losses the first counts as smaller.
    """

    def __init__(self, forget: float = 0.2, epochs: int = 10) -> None:
        super().__init__()
        self.forget, self.epochs = forget, epochs

    def forward(self, *, losses: Tensor, epoch: int, **facts: Any) -> Tensor:
        """Return factors ``[B]``."""
        rows = len(losses)
        kept = max(1, int((1 - self.forget * min(epoch / self.epochs, 1.0)) * rows))
        factors = torch.zeros_like(losses)
        factors[losses.argsort(stable=True)[:kept]] = rows / kept
        return factors
