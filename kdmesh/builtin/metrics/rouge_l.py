"""ROUGE-L: the longest common subsequence of words of a text and the data's answer.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, section 3.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kdmesh.contracts.metric import TextMetric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText

WORD = re.compile(r"[^\W_]+")


class RougeL(TextMetric):
    """The mean over texts of ``F = (1 + b^2) R P / (R + b^2 P)``, with ``R = LCS / m`` and ``P = LCS / n``.

    ``m`` words of the data's answer, ``n`` of the text, ``LCS`` of their longest common subsequence; 0 where that is 0.
    Words are runs of letters and digits, without case; nothing is stemmed, and the whole text is one sequence.
    """

    reason = "the data answer no words"

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def of(self, text: WrittenText) -> float | None:
        """F; a prompt without an answer in words does not count."""
        truth, said = WORD.findall(text.given.casefold()), WORD.findall(text.text.casefold())
        if not truth:
            return None
        common = longest_common(truth, said)
        if not common:
            return 0.0
        recall, precision, square = common / len(truth), common / len(said), self.beta**2
        return (1 + square) * recall * precision / (recall + square * precision)


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, against in enumerate(other, 1):
            above = row[at]
            row[at] = before + 1 if word == against else max(above, row[at - 1])
            before = above
    return row[-1]
