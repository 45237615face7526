"""The text of each prompt that verifiers find the best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText


class Best(Filter):
    """Keeps, of the texts of each prompt, that with the highest reward, of equals the first: best of n.

    A text of which the stream's verifiers do not know how right it is is dropped.
    """

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """By their rewards."""
        best: dict[int, tuple[float, int]] = {}
        for at, one in enumerate(texts):
            if one.reward is not None:
                best[one.sample] = min(best.get(one.sample, (-one.reward, at)), (-one.reward, at))
        return [best.get(one.sample, (0.0, -1))[1] == at for at, one in enumerate(texts)]

    def scores(self, texts: Sequence[WrittenText]) -> list[float]:
        """Their rewards."""
        return [math.nan if one.reward is None else one.reward for one in texts]
