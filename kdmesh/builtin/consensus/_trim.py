"""What the median and the trimmed mean share: the middle of the sorted sources, coordinate by coordinate."""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import present_of, silenced


def trimmed(values: Tensor, present: Tensor | None, cuts: list[int]) -> Tensor:
    """Average ``values [M, B, C]`` per coordinate without the lowest and highest ``cuts[n]`` of n present sources.

    ``cuts`` has M + 1 entries, each leaving at least one source (``cuts[0]`` is unused: no source gives zeros).
    """
    count = present_of(values, present).sum(0)[:, None]
    cut = torch.tensor(cuts, device=values.device)[count]
    ranked = silenced(values, present, float("inf")).sort(0).values  # the absent last
    total = torch.zeros_like(values[0])
    for rank, value in enumerate(ranked):
        total = total + torch.where((rank >= cut) & (rank < count - cut), value, 0.0)
    return total / (count - 2 * cut).clamp(min=1)
