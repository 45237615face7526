"""Right rules of pruning, of which wrong ones are made."""

from __future__ import annotations

import torch

from kdmesh.prunings import Pruning


class Smallest(Pruning):
    """The smallest values of each weight become 0."""

    def __init__(self, share):
        self.share = share

    def left(self, weights):
        return {name: self.mask(one) for name, one in weights.items()}

    def zeros(self, sizes):
        return sum(round(self.share * size) for size in sizes)

    def mask(self, weight):
        flat = weight.flatten().abs()
        kept = torch.ones_like(flat, dtype=torch.bool)
        kept[flat.argsort(stable=True)[: round(self.share * len(flat))]] = False
        return kept.reshape(weight.shape)


class Chance(Pruning):
    """Values that are drawn become 0."""

    def __init__(self, share):
        self.share = share

    def left(self, weights):
        found = {}
        for name, one in weights.items():
            kept = torch.ones(one.numel(), dtype=torch.bool, device=one.device)
            kept[torch.randperm(one.numel(), device=one.device)[: round(self.share * one.numel())]] = False
            found[name] = kept.reshape(one.shape)
        return found

    def zeros(self, sizes):
        return sum(round(self.share * size) for size in sizes)


class Shallow(Pruning):
    """The last layer is left out."""

    def smaller(self, net):
        net.model.layers = net.model.layers[:-1]
        net.config.num_hidden_layers -= 1
        return net
