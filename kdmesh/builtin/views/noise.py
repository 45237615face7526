"""Gaussian noise on every feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.builtin.views._random import normal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """``x + std * n``, n standard normal and a function of (seed, sample id, draw, feature) alone."""

    seed: int
    std: float = 0.1

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Tensor:
        """Return ``x [B, ...]`` with noise; ``ids [B]`` int64."""
        return x + normal(x.shape[1:], ids, self.seed, "noise", draw).to(x) * self.std
