"""Numeric answers: the share of texts whose last number is that of the data, of no paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.metric import TextMetric
from kdmesh.text import answers

if TYPE_CHECKING:
    from kdmesh.contracts.filter import WrittenText


class NumericAnswer(TextMetric):
    """``sum_i [number_i = reference_i] / N``, of the last number in what ``pattern`` finds, by default in all.

    Numbers are compared exactly, as decimals: 1,000.0 is 1000. A text without one is wrong. Answers to problems of
    GSM8K (Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021) stand after `####`.
    """

    reason = "no answer of the data has a number"

    def __init__(self, pattern: str | None) -> None:
        super().__init__()
        self.pattern = None if pattern is None else answers.pattern(pattern)

    def of(self, text: WrittenText) -> float | None:
        """1 or 0; a prompt whose answer in the data has no number does not count."""
        truth = answers.number(answers.extracted(self.pattern, text.known) or text.known)
        if truth is None:
            return None
        said = answers.extracted(self.pattern, text.answer)
        return float(said is not None and answers.number(said) == truth)
