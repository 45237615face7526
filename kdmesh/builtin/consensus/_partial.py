"""What rules share whose sources know only some of the classes: a logit of -inf says that a class is unknown."""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import silenced


def known(logits: Tensor, present: Tensor | None) -> Tensor:
    """Which classes each present source knows ``[M, B, C]``."""
    return silenced(~logits.isneginf(), present, False)


def joined(logits: Tensor, shown: Tensor) -> Tensor:
    """The mean over the sources that know a class of ``logits [M, B, C]``, finite ``[B, C]``.

    A class that none of them knows gets the row's lowest value, without gradient; a row without any gets zeros.
    """
    total = torch.zeros_like(logits[0])
    for value, mask in zip(logits, shown, strict=True):
        total = total + torch.where(mask, value, 0.0)
    count = shown.sum(0)
    mean = total / count.clamp(min=1)
    lowest = torch.where(count > 0, mean.detach(), torch.inf).amin(-1, keepdim=True)
    return torch.where(count > 0, mean, torch.where(lowest.isfinite(), lowest, 0.0))
