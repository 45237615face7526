"""Repetition: how much of a text repeats runs of words that it has had already.

Welleck, Kulikov, Roller, Dinan, Cho and Weston, "Neural Text Generation With Unlikelihood Training", 2020 (seq-rep-n).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.metric import TextMetric

if TYPE_CHECKING:
    from kdmesh.contracts.filter import WrittenText


class Repetition(TextMetric):
    """The mean over texts of ``1 - |different n-grams| / |n-grams|``, of words; texts shorter than n do not count."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.reason = f"no text has {n} words"

    def of(self, text: WrittenText) -> float | None:
        """The share that repeats."""
        words = text.text.split()
        runs = [tuple(words[at : at + self.n]) for at in range(len(words) - self.n + 1)]
        return 1 - len(set(runs)) / len(runs) if runs else None
