"""Cross-entropy of the labels, in nats.

Good, "Rational Decisions", 1952: the logarithmic score.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kdmesh.contracts.metric import Answers, Metric


def nats(answers: Answers) -> tuple[float, int]:
    """The negative log-likelihood of the labels that have a column, summed, and how many these are."""
    column, known = answers.own
    log_p = answers.log_p
    if known is not None:
        log_p, column = log_p[known], column[known]
    return functional.nll_loss(log_p, column, reduction="sum").item(), len(column)


def binary_nats(answers: Answers) -> tuple[float, int]:
    """The negative log-likelihood of labels that are each on its own, summed, and the number of rows."""
    y = answers.labels.to(answers.scores.dtype)
    loss = functional.binary_cross_entropy if answers.probs else functional.binary_cross_entropy_with_logits
    return loss(answers.scores, y, reduction="sum").item(), len(y)


class Loss(Metric):
    """``- sum_i log p_i(y_i) / N`` over the rows whose class has a column, 0 if there are none; from 0 up.

    Where a row has several labels, ``p_i(y_i)`` is the product of their probabilities.
    """

    def __init__(self) -> None:
        self.nats, self.rows = 0.0, 0

    def update(self, answers: Answers) -> None:
        """Sum nats."""
        more, rows = nats(answers) if answers.labels.dim() == 1 else binary_nats(answers)
        self.nats += more
        self.rows += rows

    def each(self, answers: Answers) -> Tensor:
        """The nats of each row; NaN for one whose class has no column."""
        if answers.labels.dim() > 1:
            y = answers.labels.to(answers.scores.dtype)
            loss = functional.binary_cross_entropy if answers.probs else functional.binary_cross_entropy_with_logits
            return loss(answers.scores, y, reduction="none").sum(1)
        column, known = answers.own
        found = functional.nll_loss(answers.log_p, column, reduction="none")
        return found if known is None else found.masked_fill(~known, torch.nan)

    def compute(self) -> float:
        """The mean."""
        return self.nats / max(self.rows, 1)
