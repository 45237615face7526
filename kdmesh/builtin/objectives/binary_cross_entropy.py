"""Binary cross-entropy of labels that hold or not, each on its own.

No paper: the likelihood of logistic regression, Cox, "The Regression Analysis of Binary Sequences", 1958, label by
label ("binary relevance").
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives._base import batchmean, elementmean, refuse_form
from kdmesh.builtin.objectives._chunked import lazily
from kdmesh.builtin.objectives._numerics import comparable
from kdmesh.builtin.objectives.offers import BinaryCrossEntropyConfig
from kdmesh.contracts.objective import Objective
from kdmesh.signals.lazy import Lazy
from kdmesh.spec.settings import checked_by


@checked_by(BinaryCrossEntropyConfig)
class BinaryCrossEntropy(Objective):
    """``- sum_k y_k log q_k + (1 - y_k) log (1 - q_k)`` in nats, with ``q = sigmoid(s)``, averaged over samples:
    ``F.binary_cross_entropy_with_logits(s, y, reduction="sum") / B``.

    With ``per_element`` it is averaged over labels too: K times smaller.
    """

    def __init__(self, per_element: bool = False) -> None:
        super().__init__()
        self.reduce = elementmean if per_element else batchmean

    def forward(
        self, student: Tensor | Lazy, target: Tensor | Lazy, *, form: str = "labels", weights: Tensor | None = None
    ) -> Tensor:
        """Compare logits ``[B, K]`` with labels ``[B, K]`` of 0 and 1."""
        refuse_form(self, form, ("labels",))
        if isinstance(student, Lazy) or isinstance(target, Lazy):
            return lazily(self, student, target, form=form, weights=weights)
        student, target = comparable(student, target, weights)
        return self.reduce(F.binary_cross_entropy_with_logits(student, target, reduction="none"), weights)
