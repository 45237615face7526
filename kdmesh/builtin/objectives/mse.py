"""Mean squared error between logits.

Ba and Caruana, "Do Deep Nets Really Need to be Deep?", 2014.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives._base import batchmean, elementmean, refuse_form
from kdmesh.builtin.objectives._chunked import lazily
from kdmesh.builtin.objectives._numerics import comparable, distance
from kdmesh.builtin.objectives.offers import DistanceConfig
from kdmesh.contracts.objective import Objective
from kdmesh.signals.lazy import Lazy
from kdmesh.spec.settings import checked_by


@checked_by(DistanceConfig)
class MSE(Objective):
    """``sum_c (s_c - t_c)²``, averaged over samples: ``F.mse_loss(s, t, reduction="sum") / B``.

    With ``per_element`` it is averaged over classes too, ``F.mse_loss(s, t)``: C times smaller.
    Where both sides rule a class or candidate out (``-inf``) it is 0, where one does, infinite.
    """

    def __init__(self, per_element: bool = False) -> None:
        super().__init__()
        self.reduce = elementmean if per_element else batchmean

    def forward(
        self, student: Tensor | Lazy, target: Tensor | Lazy, *, form: str = "logits", weights: Tensor | None = None
    ) -> Tensor:
        """Compare answers ``[B, C]`` with answers, or with labels that are values, ``[B, C]``."""
        refuse_form(self, form, ("logits", "labels"))
        if isinstance(student, Lazy) or isinstance(target, Lazy):
            return lazily(self, student, target, form=form, weights=weights)
        student, target = comparable(student, target, weights)
        return distance(F.mse_loss, student, target, self.reduce, weights)
