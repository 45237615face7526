"""How often the better of two answers is the likelier one: the accuracy of the implicit reward of a language model.

Rafailov, Sharma, Mitchell, Manning, Ermon and Finn, "Direct Preference Optimization: Your Language Model is Secretly a
Reward Model", 2023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.contracts.metric import Answers


class PairAccuracy(Metric):
    """``mean_i [m_i > 0] + [m_i = 0] / 2`` of margins m, log-probabilities of the chosen less the rejected answer.

    Of who says the same as the agent that it is compared with it is so 0.5.
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def each(self, answers: Answers) -> Tensor:
        """What each pair counts, ``[N]`` float64."""
        margins = (answers.scores[:, 0] - answers.scores[:, 1]).double().cpu()
        return (margins > 0).double() + (margins == 0).double() / 2

    def update(self, answers: Answers) -> None:
        """Count some pairs: in halves, which are added without rounding."""
        self._sum += float(self.each(answers).sum())
        self._count += len(answers)

    def compute(self) -> float | None:
        """The share; None of no pair."""
        return self._sum / self._count if self._count else None

    def undefined(self) -> str:
        """Why there is no share."""
        return "" if self._count else "there are no pairs"
