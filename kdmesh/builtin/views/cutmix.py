"""CutMix: a box of an image is another image's, and labels count by the area of each.

S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo. CutMix: Regularization Strategy to Train Strong Classifiers with
Localizable Features. ICCV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kdmesh.builtin.views._mixing import drawn, told
from kdmesh.builtin.views._random import need_image
from kdmesh.streams.views import Mixed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Cutmix:
    """A box of image i is that of image j, j by a permutation of the batch.

    The box has ``int(H * sqrt(1 - share))`` rows and as many columns of W, with ``share ~ Beta(alpha, alpha)``, around
    a pixel that is drawn uniformly (its row, then its column), from half of that before it to half after, rounded down,
    cut at the borders. Then ``share`` is corrected to the area that stays: ``1 - box / (H * W)``.
    """

    seed: int
    alpha: float = 1.0
    per: str = "batch"
    p: float = 1.0

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Mixed:
        """Return the mixed images ``x [B, C, H, W]``; ``ids`` are not read: what is drawn belongs to the batch."""
        need_image(x, "cutmix")
        height, width = x.shape[2:]
        shares, partner, generator = drawn(len(x), self.alpha, self.p, self.per, self.seed, "cutmix", draw)
        rows, high = _side(height, shares, generator)
        columns, wide = _side(width, shares, generator)
        box = (rows[:, :, None] & columns[:, None, :])[:, None].to(x.device)  # [1 or B, 1, H, W]
        partner, share = partner.to(x.device), told(1 - (high * wide).double() / (height * width), self.per, x.device)
        return Mixed(torch.where(box, x[partner], x), partner, share)


def _side(size: int, shares: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The rows, or columns, that boxes have, ``[n, size]`` bool, and how many, ``[n]``."""
    half = (size * (1 - shares).sqrt()).long() // 2
    middle = torch.randint(size, (len(shares),), generator=generator)
    first, end = (middle - half).clamp(0, size), (middle + half).clamp(0, size)
    places = torch.arange(size)
    return (places >= first[:, None]) & (places < end[:, None]), end - first
