"""Micro F1: the harmonic mean of precision and recall of all answers together, whatever their label.

Van Rijsbergen, "Information Retrieval", 1979; micro and macro means: Lewis, "Evaluating Text Categorization", 1991.
"""

from __future__ import annotations

from kdmesh.builtin.metrics._counts import Counts


class MicroF1(Counts):
    """``2 sum_k right_k / sum_k (rows_k + answered_k)``, from 0 to 1; a label is answered where its probability is
    above 0.5.

    Not defined where no row has a label and none is answered.
    """

    def compute(self) -> float | None:
        """The share."""
        both = int((self.rows + self.answered).sum())
        return 2 * int(self.right.sum()) / both if both else None

    def undefined(self) -> str:
        """Why there is no figure."""
        return "no row has a label, and none is answered"
