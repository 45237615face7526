"""Accuracy of each class: the diagonal of the confusion matrix over its rows.

No paper: the share of right answers among the rows of a class, its recall.
"""

from __future__ import annotations

from kdmesh.builtin.metrics._counts import Counts


class PerClassAccuracy(Counts):
    """``right_c / rows_c`` for each class c in its order, each from 0 to 1; None for a class without a row."""

    def compute(self) -> list[float | None] | None:
        """The shares; None without a row."""
        if not self.rows.any():
            return None
        return [value if rows else None for value, rows in zip(self.recall().tolist(), self.rows.tolist(), strict=True)]
