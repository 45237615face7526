"""Entropy reduction aggregation: the mean of probabilities, sharpened.

Itahara, Nishio, Koda, Morikura and Yamamoto, "Distillation-Based Semi-Supervised Federated Learning for
Communication-Efficient Collaborative Training with Non-IID Private Data", 2021 (DS-FL), where ``T = 0.1``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.builtin.consensus._base import silenced, uniform
from kdmesh.builtin.consensus.offers import EntropyReductionConfig
from kdmesh.contracts.rule import Rule, weighted_sum
from kdmesh.spec.settings import checked_by

if TYPE_CHECKING:
    from torch import Tensor


@checked_by(EntropyReductionConfig)
class EntropyReduction(Rule):
    """``softmax(mean_m p_m / T)``, T being ``sharpening``: probabilities, not logits, stand in the softmax.

    They are at most 1, so that what it gives has at most ``e^(1/T)`` times as much at one class as at another: T above
    0.3 or so flattens instead, and of one source it gives other than what that says. A class that all present sources
    rule out (logit ``-inf``) stays ruled out. The order of sources changes rounding only.

    It takes the mean at its word: where sources know few classes each, the likeliest class of the mean is often a wrong
    one, and sharpening makes the readers certain of it.
    """

    def __init__(self, sharpening: float = 0.1) -> None:
        super().__init__()
        self.sharpening = sharpening

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return distributions ``[B, C]``."""
        mean = weighted_sum(values, uniform(values, present))
        ruled_out = silenced(logits.isneginf(), present, True).all(0)
        ruled_out = ruled_out & ~ruled_out.all(-1, keepdim=True)  # where nobody is present
        return (mean / self.sharpening).masked_fill(ruled_out, float("-inf")).softmax(-1)
