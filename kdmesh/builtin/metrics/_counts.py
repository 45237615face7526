"""Rows by class, counted: what recall, precision and their means are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers, Metric


class Counts(Metric):
    """For each of K classes or labels: rows of it, answers with it, and right answers, each ``[K]`` int64 on the CPU.

    Of labels each on its own (indicators) those are answered whose probability is above 0.5.
    """

    def __init__(self) -> None:
        self.rows: Tensor = torch.zeros(1, dtype=torch.int64)
        self.answered, self.right = self.rows, self.rows

    def update(self, answers: Answers) -> None:
        """Count."""
        size, labels = answers.total, answers.labels
        if labels.dim() > 1:
            held, said = labels > 0, answers.marginals > 0.5
            self.rows = self.rows + held.sum(0).cpu()
            self.answered = self.answered + said.sum(0).cpu()
            self.right = self.right + (held & said).sum(0).cpu()
            return
        self.rows = self.rows + torch.bincount(labels, minlength=size).cpu()
        self.answered = self.answered + torch.bincount(answers.guess, minlength=size).cpu()
        self.right = self.right + torch.bincount(labels[answers.hit], minlength=size).cpu()

    def recall(self) -> Tensor:
        """The share of right answers of each class ``[K]`` float64; NaN for a class without a row."""
        return self.right.double() / self.rows.double()

    def undefined(self) -> str:
        """Without a row there is nothing to count."""
        return "no row"
