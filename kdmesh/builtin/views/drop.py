"""Dropped features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.builtin.views._random import below

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Drop:
    """Each feature is 0 with probability ``p``, else scaled by ``1 / (1 - p)``, so that its mean stays."""

    seed: int
    p: float = 0.1

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Tensor:
        """Return ``x [B, ...]`` with features dropped; ``ids [B]`` int64."""
        return (x / (1 - self.p)).masked_fill(below(self.p, x.shape[1:], ids, self.seed, "drop", draw), 0.0)
