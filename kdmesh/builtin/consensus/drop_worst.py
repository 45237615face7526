"""The mean without the sources that err most on validation.

Lin, Kong, Stich and Jaggi, "Ensemble Distillation for Robust Model Fusion in Federated Learning", 2020, who leave out
the worst of their parties' models. They judge by accuracy, against that of a guess; here so many are left out, by the
squared errors of probabilities (the Brier score) or, where answers are values, of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.builtin.consensus._base import present_of
from kdmesh.builtin.consensus.offers import DropWorstConfig
from kdmesh.contracts.rule import Rule
from kdmesh.signals.wide import wide
from kdmesh.spec.settings import checked_by

if TYPE_CHECKING:
    from torch import Tensor


@checked_by(DropWorstConfig)
class DropWorst(Rule):
    """``mean of v_m, m in the present sources but the `count` with the largest sum over t of e_m,t``.

    One source is always left. A source without an error, or with one that is not finite, counts as the worst; of equal
    errors that of the source that is declared first counts as the smaller. Where no error is known all are averaged.
    """

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.count = count

    def forward(
        self,
        values: Tensor,
        *,
        logits: Tensor,
        labels: Tensor | None = None,
        present: Tensor | None = None,
        errors: Tensor | None = None,
    ) -> Tensor:
        """Average ``values [M, B, C]`` by ``errors [M, T]``, in declared order; None: of all."""
        here = present_of(values, present)
        kept = here
        if errors is not None:
            known = errors.to(values.device, wide(values.device)).sum(1)
            known = torch.where(known.isfinite(), known, torch.inf)[:, None].expand(here.shape)
            order = torch.where(here, known, torch.inf).argsort(dim=0, stable=True)
            ranked = here.gather(0, order)  # the absent may stand among those without an error
            rank = torch.zeros_like(order).scatter(0, order, ranked.cumsum(0) - 1)
            left = (here.sum(0) - self.count).clamp(min=1)
            kept = here & ((rank < left) | (known.isinf() | ~here).all(0))
        total = torch.zeros_like(values[0])
        for value, one in zip(values, kept, strict=True):
            total = total + torch.where(one[:, None], value, 0.0)
        return total / kept.sum(0).clamp(min=1)[:, None]
