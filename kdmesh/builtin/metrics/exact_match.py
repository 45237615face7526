"""Exact match: the share of texts whose answer is that of the data, of no paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.metric import TextMetric
from kdmesh.text import answers
from kdmesh.text.near import normalised

if TYPE_CHECKING:
    from kdmesh.contracts.filter import WrittenText


class ExactMatch(TextMetric):
    """``sum_i [answer_i = reference_i] / N``: what ``pattern`` finds, its last match; by default all, less outer space.

    Where the pattern finds nothing in the reference, that is all of it; in a text, the answer is wrong. With ``words``
    answers are equal whose words and signs are, without case.
    """

    reason = "the data answer nothing"

    def __init__(self, pattern: str | None, words: bool) -> None:
        super().__init__()
        self.pattern, self.words = None if pattern is None else answers.pattern(pattern), words

    def of(self, text: WrittenText) -> float | None:
        """1 or 0; a prompt without an answer does not count."""
        truth = answers.extracted(self.pattern, text.known) or text.known.strip()
        if not truth:
            return None
        said = answers.extracted(self.pattern, text.answer)
        if said is None:
            return 0.0
        return float(normalised(said) == normalised(truth) if self.words else said == truth)
