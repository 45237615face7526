"""One trunk and several branches: the network of ONE and of branch-based OKDDip, in small.

Lan, Zhu and Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", 2018; Chen, Mei, Wang, Feng and Chen, "Online
Knowledge Distillation with Diverse Peers", 2020. Both branch a ResNet before its last stage; here layers are plain.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class Branched(nn.Module):
    """``trunk``, then ``branches.0`` ... ``branches.K-1``, each a ``body`` (features) and a ``head`` (logits).

    Of images ``[B, C, H, W]`` the layers are 3x3 convolutions with ReLU, and each of the trunk halves height and width;
    a body ends in the mean over pixels. Of anything else they are linear with ReLU, on the flattened sample.

    ``forward(x) -> logits [B, classes]``, the mean of the branches' logits. An exit at ``branches.i`` gives a branch's
    logits, a tap on ``branches.i.body`` its features ``[B, branch[-1]]`` (the trunk's own where ``branch`` is empty).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        trunk: Sequence[int] = (64,),
        branch: Sequence[int] = (32,),
        branches: int = 3,
    ) -> None:
        super().__init__()
        image = len(input_shape) == 3
        inputs = input_shape[0] if image else math.prod(input_shape)
        shared = [inputs, *trunk]
        own = [shared[-1], *branch]
        first: list[nn.Module] = [] if image else [nn.Flatten()]
        last: list[nn.Module] = [PixelMean()] if image else []
        self.trunk = nn.Sequential(*first, *(_layer(a, b, image, halve=True) for a, b in pairwise(shared)))
        self.branches = nn.ModuleList(
            nn.Sequential(
                OrderedDict(
                    body=nn.Sequential(*(_layer(a, b, image, halve=False) for a, b in pairwise(own)), *last),
                    head=nn.Linear(own[-1], classes),
                )
            )
            for _ in range(branches)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        shared = self.trunk(x)
        return torch.stack([branch(shared) for branch in self.branches]).mean(0)


class PixelMean(nn.Module):
    """The mean over height and width: ``[B, C, H, W] -> [B, C]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C]``."""
        return x.mean((2, 3))


def _layer(inputs: int, outputs: int, image: bool, halve: bool) -> nn.Module:
    """One layer; pooling rounds up, so that no image is too small for the trunk."""
    if not image:
        return nn.Sequential(OrderedDict(linear=nn.Linear(inputs, outputs), activation=nn.ReLU()))
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, 3, padding=1), activation=nn.ReLU()
    )
    if halve:
        parts["pool"] = nn.MaxPool2d(2, ceil_mode=True)
    return nn.Sequential(parts)
