"""The mixture of logits that knows a sample best, by its label.

Guo, Wang, Wu, Yu, Liang, Hu and Luo, "Online Knowledge Distillation via Collaborative Learning", 2020 (KDCL-Linear).
"""

from __future__ import annotations

import torch
from kdmesh.consensus import Rule, present_of, silenced, uniform
from torch import Tensor
from torch.nn import functional as F

from kdmesh_logit._labels import known

HALVINGS = 16  # of the line search: a weight is found to within 2**-16


class LinearLogits(Rule):
    """``w = argmin CE(sum_m w_m z_m, y)`` over ``w >= 0, sum w = 1``, for each sample; the problem is convex.

    From equal weights, ``iterations`` times the source whose weight most raises the loss gives to the one whose weight
    most lowers it, as much as is best for the two: exact for two sources after one exchange, a descent for more. The
    number of exchanges is fixed, so a row does not depend on its batch. Of space `logits`; needs labels. Weights carry
    no gradient. Invariant to the order of sources but for ties and rounding.
    """

    space = "logits"

    def __init__(self, iterations: int = 16) -> None:
        super().__init__()
        self.iterations = iterations

    @torch.no_grad()
    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """The best weights ``[M, B]``; zeros where no source is present."""
        truth = F.one_hot(known(self, labels), logits.shape[-1]).to(logits.dtype)
        logits, shares = silenced(logits, present), uniform(logits, present)
        for _ in range(self.iterations if len(logits) > 2 else 1):
            shares = _exchange(shares, logits, truth, present_of(logits, present))
        return shares


def _exchange(shares: Tensor, logits: Tensor, truth: Tensor, present: Tensor) -> Tensor:
    """Move weight between two sources of each sample, to the minimum on the line between them."""
    pooled = (shares[..., None] * logits).sum(0)
    slopes = ((pooled.softmax(-1) - truth) * logits).sum(-1)  # of the cross-entropy, by each weight
    giver = slopes.masked_fill(shares <= 0, -float("inf")).argmax(0, keepdim=True)
    taker = slopes.masked_fill(~present, float("inf")).argmin(0, keepdim=True)
    ones = torch.ones_like(shares[:1])
    direction = torch.zeros_like(shares).scatter_add(0, taker, ones).scatter_add(0, giver, -ones)
    line = (direction[..., None] * logits).sum(0)

    def rising(step: Tensor) -> Tensor:
        """Whether the loss rises with more than this step."""
        return (((pooled + step[0, :, None] * line).softmax(-1) - truth) * line).sum(-1) > 0

    high = shares.gather(0, giver)
    low = torch.where(rising(high), 0.0, high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        up = rising(middle)
        low, high = torch.where(up, low, middle), torch.where(up, middle, high)
    return shares + low * direction
