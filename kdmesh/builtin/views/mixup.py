"""mixup: samples are mixed, and labels by the same share.

H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz. mixup: Beyond Empirical Risk Minimization. ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.builtin.views._mixing import drawn, told
from kdmesh.streams.views import Mixed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mixup:
    """``x_i * share + x_j * (1 - share)``: j by a permutation of the batch, ``share ~ Beta(alpha, alpha)``.

    One share for the batch, as in the paper's code, or one for each sample; both are drawn as `_mixing.drawn` says.
    """

    seed: int
    alpha: float = 1.0
    per: str = "batch"
    p: float = 1.0

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Mixed:
        """Return the mixed batch ``x [B, ...]``; ``ids`` are not read: what is drawn belongs to the batch."""
        shares, partner, _ = drawn(len(x), self.alpha, self.p, self.per, self.seed, "mixup", draw)
        partner, share = partner.to(x.device), told(shares, self.per, x.device)
        if isinstance(share, float):
            return Mixed(x * share + x[partner] * (1 - share), partner, share)
        factor = share.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
        return Mixed(x * factor + x[partner] * (1 - factor), partner, share)
