"""Small weights become 0, and stay 0 while the rest trains.

Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015; over the whole model as Zhu and
Gupta, To prune, or not to prune, 2017, compare it. Weights of linear and convolutional layers; biases, norms,
embeddings, a head that is tied to one, and a head that starts at random, stay whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.contracts.pruning import Pruning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Magnitude(Pruning):
    """``share``: of the weights of each layer, or with ``over: model`` of all of them together."""

    def __init__(self, share: float, over: str = "layer") -> None:
        self.share, self.over = share, over

    def left(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All but the smallest."""
        if self.over == "layer":
            return {name: self._largest(one) for name, one in weights.items()}
        every = list(weights.values())
        parts = self._largest(torch.cat([one.flatten() for one in every])).split([one.numel() for one in every])
        return {name: part.reshape(one.shape) for (name, one), part in zip(weights.items(), parts, strict=True)}

    def zeros(self, sizes: Sequence[int]) -> int:
        """This share."""
        return sum(map(self._gone, sizes if self.over == "layer" else [sum(sizes)]))

    def _largest(self, weight: Tensor) -> Tensor:
        """Which are left when this share of the smallest goes; of equal ones the first go."""
        flat = weight.flatten().abs()
        mask = torch.ones_like(flat, dtype=torch.bool)
        mask[flat.argsort(stable=True)[: self._gone(weight.numel())]] = False
        return mask.reshape(weight.shape)

    def _gone(self, size: int) -> int:
        return round(self.share * size)
