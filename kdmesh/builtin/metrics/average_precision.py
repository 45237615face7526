"""Mean average precision: how far up each label's rows stand when all rows are ranked by its probability.

Salton and McGill, "Introduction to Modern Information Retrieval", 1983. As a step function, without interpolation:
scikit-learn's `average_precision_score`, whose macro average this is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers, Metric


class MeanAveragePrecision(Metric):
    """``mean_k sum_n (R_n - R_{n-1}) P_n`` over labels k: precision P and recall R of the rows whose probability is at
    least the n-th largest, from 0 to 1.

    A constant answer has the share of rows that have the label. Every row's probabilities are kept, on the CPU.
    Not defined where no row has a label.
    """

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.labels: list[Tensor] = []

    def update(self, answers: Answers) -> None:
        """Keep scores, which rank as their probabilities do, and labels."""
        self.seen.append(answers.scores.cpu())
        self.labels.append(answers.labels.cpu())

    def undefined(self) -> str:
        """Which label no row has."""
        if not self.seen:
            return "no row"
        missing = (torch.cat(self.labels).sum(0) == 0).nonzero().flatten().tolist()
        return f"no row has label {missing[0]}" if missing else ""

    def compute(self) -> float | None:
        """The mean over labels; None where it is not defined."""
        if self.undefined():
            return None
        scores, labels = torch.cat(self.seen), torch.cat(self.labels)
        return sum(average_precision(scores[:, k], labels[:, k]) for k in range(labels.shape[1])) / labels.shape[1]


def average_precision(score: Tensor, positive: Tensor) -> float:
    """Of one label: ``score [N]``, ``positive [N]`` 0 or 1, at least one 1. Rows with one score count at once."""
    _, place, counts = (-score).unique(return_inverse=True, return_counts=True)
    hits = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, place, positive.double())
    precision = hits.cumsum(0) / counts.cumsum(0).double()
    return ((hits / hits.sum()) * precision).sum().item()
