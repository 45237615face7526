"""Distillation of standardised logits: the student need not copy the size of its teacher's logits.

Sun, Ren, Li, Wang and Cao, "Logit Standardization in Knowledge Distillation", 2024.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
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
        ruled_out = logits.isneginf()
        if logits.device.type == "cpu" and not ruled_out.any():  # reading it would make a GPU wait
            return self._plain(logits)
        filled = logits.masked_fill(ruled_out, 0.0)  # in both branches: where() passes on what is NaN in either
        return torch.where(
            ruled_out.any(-1, keepdim=True), self._among(filled, ~ruled_out), self._plain(filled)
        )  # the classes that are left have a mean and a deviation

    def _plain(self, logits: Tensor) -> Tensor:
        deviation = logits.std(-1, correction=self.correction, keepdim=True)
        return (logits - logits.mean(-1, keepdim=True)) / (deviation + EPS)

    def _among(self, logits: Tensor, known: Tensor) -> Tensor:
        """The same over the known classes ``[B, C]``; -inf stays at the others, where the logits are 0."""
        count = known.sum(-1, keepdim=True)
        apart = (logits - logits.sum(-1, keepdim=True) / count).masked_fill(~known, 0.0)
        deviation = (apart.square().sum(-1, keepdim=True) / (count - self.correction)).sqrt()
        return (apart / (deviation + EPS)).masked_fill(~known, -float("inf"))
