"""Distillation of standardised logits: the student need not copy the size of its teacher's logits.

Sun, Ren, Li, Wang and Cao, "Logit Standardization in Knowledge Distillation", 2024.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from kdmesh.objectives import ForwardKL, comparable
from torch import Tensor

EPS = 1e-7  # the published code's; equal logits become zeros


class StandardisedKL(ForwardKL):
    """``T² KL(softmax(n(t) / T) ‖ softmax(n(s) / T))`` with ``n(z) = (z - mean z) / (std z + 1e-7)`` per sample.

    ``faithful``: `paper` divides by the deviation over the C classes, `code` by torch's default, over C - 1. Reads
    logits only: n undoes any temperature that probabilities were formed at.
    """

    forms: ClassVar[tuple[str, ...]] = ("logits",)

    def __init__(
        self, temperature: float = 2.0, t2_scale: bool = True, faithful: Literal["paper", "code"] = "paper"
    ) -> None:
        super().__init__(temperature, t2_scale)
        self.correction = 0 if faithful == "paper" else 1

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "logits", weights: Tensor | None = None
    ) -> Tensor:
        """Compare logits ``[B, C]`` with logits ``[B, C]``."""
        student, target = comparable(student, target, weights)
        return super().forward(self._standard(student), self._standard(target), form=form, weights=weights)

    def _standard(self, logits: Tensor) -> Tensor:
        deviation = logits.std(-1, correction=self.correction, keepdim=True)
        return (logits - logits.mean(-1, keepdim=True)) / (deviation + EPS)
