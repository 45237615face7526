"""The one source that knows a sample best, by its label.

Guo, Wang, Wu, Yu, Liang, Hu and Luo, "Online Knowledge Distillation via Collaborative Learning", 2020 (KDCL-naive, per
sample here).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import label_losses, silenced
from kdmesh.contracts.rule import Rule


class LowestCE(Rule):
    """Weight 1 for the present source of lowest cross-entropy on the label, per sample; ties go to the first declared.

    Needs labels. Weights carry no gradient, the chosen values do. Invariant to order but for ties.
    """

    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """One-hot weights ``[M, B]``."""
        losses = label_losses(self, logits, labels, present, absent=float("inf"))
        chosen = torch.zeros_like(losses).scatter(0, losses.argmin(0, keepdim=True), 1.0)
        return silenced(chosen, present)  # where nobody is present
