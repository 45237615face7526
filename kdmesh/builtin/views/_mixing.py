"""What views that mix the samples of a batch draw: shares of a Beta distribution, and who is mixed with whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from scipy.special import betaincinv

from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from torch import Tensor


class Drawn(NamedTuple):
    """``shares``: of the own sample, ``[1]`` or ``[B]`` float64, 1 where nothing is mixed; ``partner [B]`` int64;
    ``generator``: from which to draw on."""

    shares: Tensor
    partner: Tensor
    generator: torch.Generator


def drawn(batch: int, alpha: float, p: float, per: str, *names: int | str) -> Drawn:
    """Draw for a batch, on the CPU, so that every device mixes alike, from a generator seeded by ``names``.

    In this order: for the batch, or (``per`` is `sample`) for each of its samples, a number by which it is mixed at
    all, with probability ``p``, and one that gives the share as a quantile of Beta(alpha, alpha); then a permutation.
    """
    generator = torch.Generator().manual_seed(mix(*names))
    count = batch if per == "sample" else 1
    mixes = torch.rand(count, dtype=torch.float64, generator=generator) < p
    quantiles = torch.rand(count, dtype=torch.float64, generator=generator)
    shares = torch.from_numpy(betaincinv(alpha, alpha, quantiles.numpy()))
    return Drawn(torch.where(mixes, shares, 1.0), torch.randperm(batch, generator=generator), generator)


def told(shares: Tensor, per: str, device: torch.device) -> float | Tensor:
    """Shares as a batch is told them: one number, or one for each sample."""
    return shares.float().to(device) if per == "sample" else float(shares)
