"""Attention between transformers: the student attends to the same tokens, by a divergence.

Wang, Wei, Dong, Bao, Yang and Zhou, "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of
Pre-Trained Transformers", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import batchmean, refuse_form
from kdmesh.builtin.objectives._rows import comparable_rows
from kdmesh.contracts.objective import Objective


class AttentionKL(Objective):
    """``sum_k t_k log(t_k / s_k)`` of attention rows, the mean over tokens.

    A row is how one token attends to the tokens of its text, with zeros after them; student and target read the same
    tokens. Heads are averaged before (the paper compares each head, and so needs equal numbers of them), and only the
    layers that the flow names are compared (the paper: the last). The student's are clamped at the smallest normal
    number.
    """

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
    ) -> Tensor:
        """Compare attention rows ``[T, width]``; the widths may differ."""
        refuse_form(self, form, ("hidden",))
        student, target = comparable_rows(student, target, weights)
        tiny = torch.finfo(student.dtype).tiny
        return batchmean(torch.xlogy(target, target.clamp_min(tiny)) - target * student.clamp_min(tiny).log(), weights)
