"""Accuracy: the share of rows whose likeliest class is their label.

No paper: the share of right answers.
"""

from __future__ import annotations

from torch import Tensor

from kdmesh.contracts.metric import Answers, Metric


class Accuracy(Metric):
    """``sum_i [argmax p_i = y_i] / N``, from 0 to 1. Every row counts: a class without a column is never right."""

    def __init__(self) -> None:
        self.right, self.rows = 0.0, 0

    def update(self, answers: Answers) -> None:
        """Count right answers."""
        self.right += answers.hit.to(answers.p.dtype).sum().item()
        self.rows += len(answers)

    def each(self, answers: Answers) -> Tensor:
        """1 for a right answer, else 0."""
        return answers.hit.float()

    def compute(self) -> float | None:
        """The share of right answers."""
        return self.right / self.rows if self.rows else None
