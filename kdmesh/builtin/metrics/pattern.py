"""Texts of a form: the share in which a regular expression is found, of no paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.metric import TextMetric
from kdmesh.text import answers

if TYPE_CHECKING:
    from kdmesh.contracts.filter import WrittenText


class Pattern(TextMetric):
    """``sum_i [match is found in text_i] / N``."""

    reason = "there is no text"

    def __init__(self, match: str) -> None:
        super().__init__()
        self.match = answers.pattern(match)

    def of(self, text: WrittenText) -> float:
        """1 or 0."""
        return float(self.match.search(text.text) is not None)
