"""By how much the better of two answers is the likelier one: the margin of the implicit reward of a language model.

Rafailov, Sharma, Mitchell, Manning, Ermon and Finn, "Direct Preference Optimization: Your Language Model is Secretly a
Reward Model", 2023.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kdmesh.contracts.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.contracts.metric import Answers


class PairMargin(Metric):
    """``mean_i m_i`` of margins m, log-probabilities of the chosen less the rejected answer, in nats."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def each(self, answers: Answers) -> Tensor:
        """The margin of each pair, ``[N]`` float64."""
        return (answers.scores[:, 0] - answers.scores[:, 1]).double().cpu()

    def update(self, answers: Answers) -> None:
        """Add some pairs: a number of each is kept, so that their order does not matter to the last bit."""
        self._values += self.each(answers).tolist()

    def compute(self) -> float | None:
        """The mean; None of no pair."""
        return math.fsum(self._values) / len(self._values) if self._values else None

    def undefined(self) -> str:
        """Why there is no mean."""
        return "" if self._values else "there are no pairs"
