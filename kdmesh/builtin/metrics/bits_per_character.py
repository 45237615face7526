"""Bits per character: how well a text is predicted, whatever the tokens it is cut into.

Mikolov, Sutskever, Deoras, Le, Kombrink and Cernocky, "Subword Language Modeling with Neural Networks", 2012.
"""

from __future__ import annotations

import math

from kdmesh.builtin.metrics.loss import nats
from kdmesh.contracts.metric import Answers, Metric


class BitsPerCharacter(Metric):
    """``- sum_i log2 p_i(y_i)`` over the number of characters that the rows are about, from 0 up."""

    def __init__(self) -> None:
        self.nats, self.characters = 0.0, 0

    def update(self, answers: Answers) -> None:
        """Sum nats and characters."""
        self.nats += nats(answers)[0]
        self.characters += answers.characters or 0

    def compute(self) -> float | None:
        """The mean; None without a character."""
        return self.nats / math.log(2) / self.characters if self.characters else None
