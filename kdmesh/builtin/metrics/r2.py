"""Coefficient of determination: the share of the labels' variance that answers explain.

Wright, "Correlation and Causation", 1921.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers, Metric


class R2(Metric):
    """``1 - sum_i (s_i - y_i)² / sum_i (y_i - mean y)²``, mean over the T values; at most 1, 0 for the mean.

    Labels are summed as differences from the first row that was seen, so that a large mean costs no digits.
    Not defined where a value is the same in every row.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.origin: Tensor = torch.zeros(1, dtype=torch.float64)
        self.errors, self.first, self.second = self.origin, self.origin, self.origin

    def update(self, answers: Answers) -> None:
        """Sum squared errors, and first and second powers of the labels."""
        if not len(answers):
            return
        y = answers.labels.cpu().double()
        if not self.rows:
            self.origin = y[0]
        self.errors = self.errors + (answers.scores.cpu().double() - y).square().sum(0)
        self.first = self.first + (y - self.origin).sum(0)
        self.second = self.second + (y - self.origin).square().sum(0)
        self.rows += len(y)

    def _spread(self) -> Tensor:
        return self.second - self.first.square() / max(self.rows, 1)

    def compute(self) -> float | None:
        """The mean over values; None where one of them does not vary."""
        return None if self.undefined() else (1 - self.errors / self._spread()).mean().item()

    def undefined(self) -> str:
        """Which value does not vary."""
        flat = (self._spread() <= 0).nonzero().flatten().tolist()
        return "no row" if not self.rows else f"value {flat[0]} is the same in every row" if flat else ""
