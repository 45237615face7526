"""Confusion matrix: how often each class is taken for each other.

No paper: rows counted by label and answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers, Metric


class ConfusionMatrix(Metric):
    """``[K, K]`` counts: row c has what rows of class c were taken for. Memory grows with the square of the classes."""

    def __init__(self) -> None:
        self.counts: Tensor = torch.zeros(1, 1, dtype=torch.int64)

    def update(self, answers: Answers) -> None:
        """Count."""
        size = answers.total
        pairs = torch.bincount(answers.labels * size + answers.guess, minlength=size * size)
        self.counts = self.counts + pairs.view(size, size).cpu()

    def compute(self) -> list[list[int]] | None:
        """The counts; None without a row."""
        found: list[list[int]] = self.counts.tolist()
        return found if self.counts.any() else None

    def undefined(self) -> str:
        """Without a row there is nothing to count."""
        return "no row"
