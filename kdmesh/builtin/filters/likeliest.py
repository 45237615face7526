"""The text of each prompt that an agent finds the likeliest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText


class Likeliest(Filter):
    """Keeps, of the texts of each prompt, that with the least mean of ``-log p`` over its tokens; of equals the first.

    By the agent that the mesh names with `of`, by default the writer. A text whose loss is no number is dropped.
    """

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """By the mean loss of their tokens."""
        best: dict[int, tuple[float, int]] = {}
        for at, one in enumerate(texts):
            if one.loss is not None and one.loss == one.loss:
                best[one.sample] = min(best.get(one.sample, (one.loss, at)), (one.loss, at))
        return [best.get(one.sample, (0.0, -1))[1] == at for at, one in enumerate(texts)]

    def scores(self, texts: Sequence[WrittenText]) -> list[float]:
        """The mean of ``log p`` over their tokens."""
        return [math.nan if one.loss is None else -one.loss for one in texts]
