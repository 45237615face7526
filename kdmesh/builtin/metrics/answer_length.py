"""How long texts are, in the tokens of the model that wrote them: a plain mean, of no paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.metric import TextMetric

if TYPE_CHECKING:
    from kdmesh.contracts.filter import WrittenText


class AnswerLength(TextMetric):
    """The mean number of tokens of a text, in the writer's own tokens, without the one that ends it."""

    def of(self, text: WrittenText) -> float:
        """Its tokens."""
        return float(text.tokens)
