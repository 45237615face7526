"""Weights by the sources' errors on validation, for each value: who errs less has more say.

Bates and Granger, "The Combination of Forecasts", 1969, for errors that are not correlated; Perrone and Cooper, "When
Networks Disagree: Ensemble Methods for Hybrid Neural Networks", 1993, for ensembles of networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.builtin.consensus._base import present_of
from kdmesh.contracts.rule import Rule
from kdmesh.signals.wide import wide

if TYPE_CHECKING:
    from torch import Tensor


class InverseVariance(Rule):
    """``w_m,t = (1 / e_m,t) / sum_k (1 / e_k,t)`` over the present sources, ``e_m,t`` the mean squared error of source
    m in value t on validation.

    Where errors are unbiased and not correlated no other weights that sum to 1 err less. A source without an error,
    or with one that is not finite, has no say unless all are so: then all have the same. One that does not err at all
    has all of it. The order of sources changes rounding only.
    """

    def forward(
        self,
        values: Tensor,
        *,
        logits: Tensor,
        labels: Tensor | None = None,
        present: Tensor | None = None,
        errors: Tensor | None = None,
    ) -> Tensor:
        """Sum ``values [M, B, T]`` by weights of ``errors [M, T]``, in declared order; None: all have the same say."""
        here = present_of(values, present)[..., None]
        if errors is None:
            errors = values.new_zeros(values.shape[0], values.shape[2])
        errors = errors.to(values.device, wide(values.device))
        known = torch.where(errors.isfinite(), errors, torch.inf)[:, None].expand(values.shape)
        known = torch.where(here, known, torch.inf)
        least = known.amin(0)
        shares = torch.where(known == least, 1.0, least / known) * here  # 1 / e without dividing by 0; inf: all alike
        total = shares.sum(0)
        shares = (shares / torch.where(total > 0, total, 1.0)).to(values.dtype)
        mixed = torch.zeros_like(values[0])
        for value, share in zip(values, shares, strict=True):
            mixed = mixed + torch.where(share != 0, value, 0.0) * share
        return mixed
