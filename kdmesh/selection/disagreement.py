"""Where teachers disagree: the generalised Jensen-Shannon divergence of what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.selection.criterion import Asked, Criterion

if TYPE_CHECKING:
    from torch import Tensor


class Disagreement(Criterion):
    """``H(mean_m p_m) - mean_m H(p_m)`` in nats, with ``p_m = softmax(z_m / T)`` (Lin 1991): 0 where all say the same.

    ``temperature``: T.
    """

    needs = ("several",)

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def rows(self, asked: Asked) -> Tensor:
        """See the class."""
        probs = (asked.teachers.double() / self.temperature).softmax(-1)
        return _entropy(probs.mean(0)) - _entropy(probs).mean(0)


def _entropy(probs: Tensor) -> Tensor:
    return -probs.xlogy(probs).sum(-1)
