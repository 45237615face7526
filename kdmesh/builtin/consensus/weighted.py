"""Fixed weights, one per source in declared order: the linear opinion pool with weights from outside.

No paper: the pool is older than distillation; the weights are the user's own judgement of the sources.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import present_of
from kdmesh.builtin.consensus.offers import WeightedConfig
from kdmesh.contracts.rule import Rule
from kdmesh.errors import MeshError
from kdmesh.spec.settings import checked_by


@checked_by(WeightedConfig)
class Weighted(Rule):
    """``w_m = v_m / sum v`` over the present sources, for given positive ``v``. Not order invariant, by its nature."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.given = weights

    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """The given weights, normalised over the present ``[M, B]``; MeshError if there is not one per source."""
        given, sources = len(self.given), logits.shape[0]
        if given != sources:
            raise MeshError(
                f"{given} weights for {sources} sources",
                where="weights",
                instead="one weight per source, in their order",
            )
        shares = logits.new_tensor(self.given)[:, None] * present_of(logits, present)
        total = shares.sum(0)
        return shares / torch.where(total > 0, total, 1.0)
