"""Weights by certainty: a source with less entropy has more say.

Kwon, Na, Lee and Kim, "Adaptive Knowledge Distillation Based on Entropy", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import complement, present_of, silenced
from kdmesh.contracts.rule import Rule


class Entropy(Rule):
    """``w_m = (1 - H_m / sum H) / (n - 1)`` over the n present sources, per sample, with entropies at T = 1.

    The factor 1 / (n - 1) makes the weights sum to 1; published code leaves it out. A single source has weight 1, and
    sources without any entropy share equally. The order of sources changes rounding only.
    """

    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Weights ``[M, B]``, with gradient to the logits."""
        mask = present_of(logits, present)
        # the clamp keeps 0 * log 0 at 0 for classes a source excludes with a logit of -inf
        log_p = silenced(logits, present).log_softmax(-1).clamp_min(torch.finfo(logits.dtype).min)
        entropy = silenced(-(log_p.exp() * log_p).sum(-1), present)
        total = entropy.sum(0)
        shares = torch.where(total > 0, entropy / torch.where(total > 0, total, 1.0), 1.0 / mask.sum(0).clamp(min=1))
        return complement(shares, mask)
