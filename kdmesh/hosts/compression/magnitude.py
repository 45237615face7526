"""Small weights become 0, and stay 0 while the rest trains.

Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015; over the whole model as Zhu and
Gupta, To prune, or not to prune, 2017, compare it. Weights of linear and convolutional layers; biases, norms,
embeddings, and a head that starts at random, stay whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Collection

    from kdmesh.spec.prune import MagnitudePrune

PRUNED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def prune(module: nn.Module, how: MagnitudePrune, drawn: Collection[str]) -> tuple[dict[str, Tensor], int]:
    """Put zeros into a module; returns, by parameter, which of its weights are left (bool), and how many are not.

    ``drawn``: the parameters that no file had. MeshError where there is no layer of these kinds.
    """
    weights: dict[str, Tensor] = {
        f"{path}.weight".removeprefix("."): part.weight
        for path, part in module.named_modules()
        if isinstance(part, PRUNED)
    }
    weights = {name: one for name, one in weights.items() if not any(name.endswith(other) for other in drawn)}
    if not weights:
        what = f"a {type(module).__name__} has no linear or convolutional layer whose weights were read"
        raise MeshError(what, instead="a model with one, or no `prune`")
    if how.over == "model":
        kept = dict(zip(weights, _split(_largest(_joined(weights), how.share), weights), strict=True))
    else:
        kept = {name: _largest(one, how.share) for name, one in weights.items()}
    for name, one in weights.items():
        one.mul_(kept[name])
    parts = [_joined(weights)] if how.over == "model" else weights.values()
    return kept, sum(_gone(one, how.share) for one in parts)


def _joined(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([one.flatten() for one in weights.values()])


def _split(mask: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    parts = mask.split([one.numel() for one in weights.values()])
    return [part.reshape(one.shape) for part, one in zip(parts, weights.values(), strict=True)]


def _largest(weight: Tensor, share: float) -> Tensor:
    """Which are left when this share of the smallest goes; of equal ones the first go."""
    flat = weight.flatten().abs()
    mask = torch.ones_like(flat, dtype=torch.bool)
    mask[flat.argsort(stable=True)[: _gone(flat, share)]] = False
    return mask.reshape(weight.shape)


def _gone(weight: Tensor, share: float) -> int:
    return round(share * weight.numel())
