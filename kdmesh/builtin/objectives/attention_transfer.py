"""Attention transfer: the student attends where its target does.

Zagoruyko and Komodakis, "Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks
via Attention Transfer", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives._base import elementmean, refuse_form
from kdmesh.builtin.objectives._numerics import at_least_float32, kept, same_size
from kdmesh.builtin.objectives.offers import AttentionConfig
from kdmesh.contracts.objective import Objective
from kdmesh.spec.settings import checked_by


@checked_by(AttentionConfig)
class AttentionTransfer(Objective):
    """``mean((a(h_s) - a(h_t))²)`` with ``a(h) = n / ‖n‖₂``, ``n = sum_c |h_c|^p`` over all places of a sample.

    The mean is over samples and places, as in the published code (the paper writes a norm); channels may differ in
    number. Feature maps of unequal size are average-pooled to the smaller first.
    """

    def __init__(self, p: int = 2) -> None:
        super().__init__()
        self.p = p

    def setup(self, student: torch.Size, target: torch.Size, **facts: Tensor | None) -> None:
        """Refuse signals that are no feature maps ``[C, H, W]``, with ValueError."""
        for side, shape in (("student", student), ("target", target)):
            if len(shape) != 3:
                raise ValueError(f"attention needs feature maps [C, H, W]; the {side} gives {list(shape)}")

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
    ) -> Tensor:
        """Compare feature maps ``[B, C, H, W]``."""
        refuse_form(self, form, ("hidden",))
        sides = (kept(at_least_float32(side), weights) for side in (student, target))
        attended, wanted = (self._attention(side) for side in same_size(*sides))
        return elementmean(F.mse_loss(attended, wanted, reduction="none"), weights)

    def _attention(self, maps: Tensor) -> Tensor:
        return F.normalize(maps.abs().pow(self.p).sum(1).flatten(1))
