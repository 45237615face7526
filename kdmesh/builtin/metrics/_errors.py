"""Errors of values, summed: what means of them are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers, Metric


class Errors(Metric):
    """For each of T values: summed errors ``[T]`` float64 on the CPU, and the number of rows."""

    def __init__(self) -> None:
        self.total: Tensor = torch.zeros(1, dtype=torch.float64)
        self.rows = 0

    def error(self, difference: Tensor) -> Tensor:
        """The error of each difference ``[N, T]``."""
        raise NotImplementedError(f"{type(self).__name__} must say what an error is")

    def update(self, answers: Answers) -> None:
        """Sum errors."""
        self.total = self.total + self.error(answers.scores.cpu().double() - answers.labels.cpu().double()).sum(0)
        self.rows += len(answers)

    def each(self, answers: Answers) -> Tensor:
        """The mean error over the values of each row."""
        return self.error(answers.scores.cpu().double() - answers.labels.cpu().double()).mean(1)

    def compute(self) -> float | None:
        """The mean over rows and values; None without a row."""
        return (self.total / self.rows).mean().item() if self.rows else None

    def undefined(self) -> str:
        """Without a row there is no mean."""
        return "no row"
