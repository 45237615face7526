"""Right views, of which wrong ones are made."""

from __future__ import annotations

import torch


def drawn(seed, ids, draw, count):
    """Uniform numbers in [0, 1) ``[B, count]`` of each sample, by seed, id and draw."""
    rows = []
    for number in ids.tolist():
        generator = torch.Generator().manual_seed(((seed * 7919 + number) * 104729 + draw) % 2**31)
        rows.append(torch.rand(count, generator=generator))
    return torch.stack(rows) if rows else torch.empty(0, count)


class Brighter:
    """Each sample times a factor of its own."""

    def __init__(self, seed, spread=0.5):
        self.seed, self.spread = seed, spread

    def __call__(self, x, ids, draw):
        factor = 1 + self.spread * (2 * drawn(self.seed, ids, draw, 1) - 1)
        return x * factor.view(-1, *[1] * (x.dim() - 1)).to(x)


class Rolled:
    """Each image moved sideways, round its edge."""

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, x, ids, draw):
        width = x.shape[-1]
        by = (drawn(self.seed, ids, draw, 1)[:, 0] * width).long().to(x.device)
        column = (torch.arange(width, device=x.device)[None] + by[:, None]) % width
        index = column.view(len(x), *[1] * (x.dim() - 2), width).expand_as(x)
        return x.gather(-1, index)


class Erased:
    """Some features of each sample put to its mean."""

    def __init__(self, seed, share=0.3):
        self.seed, self.share = seed, share

    def __call__(self, x, ids, draw):
        flat = x.flatten(1)
        out = drawn(self.seed, ids, draw, flat.shape[1]).to(x.device) < self.share
        return torch.where(out, flat.mean(1, keepdim=True), flat).view_as(x)


class Normed:
    """Each sample of mean 0 and deviation 1."""

    def __init__(self, seed):
        pass

    def __call__(self, x, ids, draw):
        flat = x.flatten(1)
        spread = flat.std(1, keepdim=True).clamp_min(1e-3)
        return ((flat - flat.mean(1, keepdim=True)) / spread).view_as(x)
