"""Balanced accuracy: the mean over classes of each one's accuracy, so that frequent classes do not decide alone.

Brodersen, Ong, Stephan and Buhmann, "The Balanced Accuracy and Its Posterior Distribution", 2010.
"""

from __future__ import annotations

from kdmesh.builtin.metrics._counts import Counts


class BalancedAccuracy(Counts):
    """``mean_c right_c / rows_c`` over the classes that have rows, from 0 to 1. Chance is 1 over their number."""

    def compute(self) -> float | None:
        """The mean; None without a row."""
        there = self.rows > 0
        return self.recall()[there].mean().item() if there.any() else None
