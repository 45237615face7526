"""Mirrored images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kdmesh.builtin.views._random import below, need_image

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Flip:
    """Each image is mirrored with probability ``p``: left to right, or top to bottom if not ``horizontal``."""

    seed: int
    horizontal: bool = True
    p: float = 0.5

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Tensor:
        """Return the images ``[B, C, H, W]``, some of them mirrored; ``ids [B]`` int64."""
        need_image(x, "flip")
        mirrored = below(self.p, torch.Size((1, 1, 1)), ids, self.seed, "flip", draw)
        return torch.where(mirrored, x.flip(-1 if self.horizontal else -2), x)
