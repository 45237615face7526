"""Perplexity of the data's own texts.

Jelinek, Mercer, Bahl and Baker, "Perplexity: a measure of the difficulty of speech recognition tasks", 1977.
"""

from __future__ import annotations

import math

from kdmesh.builtin.metrics.loss import nats
from kdmesh.contracts.metric import Answers, Metric


class Perplexity(Metric):
    """``exp(- sum_i log p_i(y_i) / N)`` over the tokens of the data's answers, at temperature 1; from 1 up.

    It depends on how a model cuts texts into tokens: compare models of one tokenizer by it.
    """

    def __init__(self) -> None:
        self.nats, self.rows = 0.0, 0

    def update(self, answers: Answers) -> None:
        """Sum nats."""
        total, rows = nats(answers)
        self.nats += total
        self.rows += rows

    def compute(self) -> float | None:
        """Of the mean; None without a token, and beyond what a float holds."""
        return math.exp(self.nats / self.rows) if self.rows and self.nats / self.rows < 700 else None

    def undefined(self) -> str:
        """Why there is none."""
        return "no row counts" if not self.rows else "a loss of 700 nats a row and more"
