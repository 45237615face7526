"""Texts that an agent finds likely."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText


class Perplexity(Filter):
    """Keeps texts whose perplexity, ``exp`` of the mean of ``-log p`` over their tokens, is from ``min`` to ``max``.

    It is that of the agent that the mesh names with `of`, by default the writer, at temperature 1.
    """

    def __init__(self, min: float, max: float | None) -> None:
        self.least = math.log(min)
        self.most = math.inf if max is None else math.log(max)

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """By the mean loss of their tokens; NaN is dropped."""
        return [one.loss is not None and self.least <= one.loss <= self.most for one in texts]
