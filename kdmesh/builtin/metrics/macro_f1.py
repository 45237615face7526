"""Macro F1: the mean over classes of the harmonic mean of precision and recall.

Van Rijsbergen, "Information Retrieval", 1979. The mean of classes' F1, not the F1 of mean precision and recall: Opitz
and Burst, "Macro F1 and Macro F1", 2019.
"""

from __future__ import annotations

from kdmesh.builtin.metrics._counts import Counts


class MacroF1(Counts):
    """``mean_c 2 right_c / (rows_c + answered_c)`` over the classes, or labels, that have rows or answers, from 0 to 1.

    A label is answered where its probability is above 0.5.
    """

    def compute(self) -> float | None:
        """The mean; None without a row."""
        both = (self.rows + self.answered).double()
        there = both > 0
        return (2 * self.right.double()[there] / both[there]).mean().item() if there.any() else None
