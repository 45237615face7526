"""Distinct-n: how many different runs of words all texts have, for each word.

Li, Galley, Brockett, Gao and Dolan, "A Diversity-Promoting Objective Function for Neural Conversation Models", 2016.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.metric import Metric

if TYPE_CHECKING:
    from kdmesh.contracts.metric import Answers


class DistinctN(Metric):
    """``|different n-grams in all texts| / |words in all texts|``, from 0 to 1. It keeps the different n-grams."""

    def __init__(self, n: int) -> None:
        self.n, self.words = n, 0
        self.seen: set[tuple[str, ...]] = set()

    def update(self, answers: Answers) -> None:
        """See the texts."""
        for text in answers.texts:
            words = text.text.split()
            self.words += len(words)
            self.seen.update(tuple(words[at : at + self.n]) for at in range(len(words) - self.n + 1))

    def compute(self) -> float | None:
        """The share; None without a word."""
        return len(self.seen) / self.words if self.words else None

    def undefined(self) -> str:
        """Nothing was written."""
        return "" if self.words else "no text has a word"
