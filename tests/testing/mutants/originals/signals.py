"""Right kinds of signals, of which wrong ones are made."""

from __future__ import annotations

import torch
from torch.nn import functional as F


class Flattened:
    """Probabilities at a temperature."""

    def __init__(self, temperature=2.0):
        self.temperature = temperature

    def __call__(self, value):
        return (value / self.temperature).softmax(-1)


class Ranks:
    """Logits by their rank in the row, from 0 for the smallest to 1."""

    def __call__(self, value):
        order = value.argsort(-1)
        steps = torch.linspace(0, 1, value.shape[-1], device=value.device, dtype=value.dtype)
        return torch.empty_like(value).scatter_(-1, order, steps.expand_as(value))


class Private:
    """Probabilities of logits with noise, drawn on purpose."""

    def __init__(self, std=0.5):
        self.std = std

    def __call__(self, value):
        noise = torch.randn(value.shape, device=value.device).to(value.dtype)
        return (value + self.std * noise).softmax(-1)


class Salient:
    """How the largest logit changes with the samples: both ends make it."""

    def __call__(self, value, x, module):
        top = module(x).amax(-1).sum()
        (found,) = torch.autograd.grad(top, x, create_graph=True)
        return found.abs()


class Pooled:
    """What several layers answer, pooled and side by side, in the order of their names."""

    def __call__(self, value, taps):
        parts = [taps[name].flatten(2).mean(-1) for name in sorted(taps)]
        return torch.cat(parts, -1)


class Twice:
    """The mean of two answers: to the samples, and to these turned round."""

    def __call__(self, value, x, module):
        with torch.no_grad():
            other = module(x.flip(-1))
        return (value.softmax(-1) + other.softmax(-1)) / 2


class Seeded:
    """Half of the logits, drawn from the generator that it is given; the others are 0."""

    def __call__(self, value, generator):
        keep = torch.rand(value.shape, generator=generator, device=generator.device).to(value.device) < 0.5
        return torch.where(keep, value, 0.0)


class Top:
    """The probability of the likeliest classes alone, each row's share of 1."""

    def __init__(self, k=2):
        self.k = k

    def __call__(self, value):
        best = value.topk(self.k, -1)
        rest = torch.full_like(value, -torch.inf).scatter(-1, best.indices, best.values)
        return F.softmax(rest, -1)
