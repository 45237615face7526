"""Weights by confidence in the right class: a source with less cross-entropy on the label has more say.

Zhang, Chen and Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation", 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import complement, label_losses, present_of
from kdmesh.contracts.rule import Rule


class Confidence(Rule):
    """``w_m = (1 - softmax_m(CE_m)) / (n - 1)`` over the n present sources, per sample; a single source has weight 1.

    The published code divides by the number of sources once more; here the weights sum to 1, as in the paper. Needs
    labels. The order of sources changes rounding only.
    """

    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Weights ``[M, B]``, with gradient to the logits."""
        losses = label_losses(self, logits, labels, present, absent=torch.finfo(logits.dtype).min)
        return complement(losses.softmax(0), present_of(logits, present))
