"""Images moved by whole pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from kdmesh.builtin.views._random import integers, need_image

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Shift:
    """Each image moves by ``-pixels .. pixels`` in both directions, uniformly; what comes in is 0."""

    seed: int
    pixels: int = 1

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Tensor:
        """Return the moved images ``[B, C, H, W]``; ``ids [B]`` int64."""
        need_image(x, "shift")
        height, width = x.shape[2:]
        padded = F.pad(x, [self.pixels] * 4)
        offsets = integers(2 * self.pixels + 1, 2, ids, self.seed, "shift", draw)
        rows = offsets[:, :1] + torch.arange(height, device=ids.device)
        columns = offsets[:, 1:] + torch.arange(width, device=ids.device)
        batch = torch.arange(len(x), device=ids.device)[:, None, None]
        moved = padded.movedim(1, -1)[batch, rows[:, :, None], columns[:, None, :]]  # [B, H, W, C]
        return moved.movedim(-1, 1).contiguous()
