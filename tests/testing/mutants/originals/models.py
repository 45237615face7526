"""Right models, of which wrong ones are made."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block; its last norm begins at 0, as timm's do."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.last = nn.BatchNorm2d(width)
        nn.init.zeros_(self.last.weight)

    def forward(self, x):
        inner = self.norm(self.first(x)).relu()
        return (x + self.last(self.second(inner))).relu()


class Residual(nn.Module):
    """A stem, a block and a head."""

    def __init__(self, input_shape, classes, width=6):
        super().__init__()
        self.stem = nn.Conv2d(input_shape[0], width, 3, padding=1)
        self.block = Block(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.block(self.stem(x)).mean((2, 3)))


class Dropped(nn.Module):
    """One hidden layer with dropout."""

    def __init__(self, input_shape, classes, width=16, rate=0.3):
        super().__init__()
        self.hidden = nn.Linear(math.prod(input_shape), width)
        self.head = nn.Linear(width, classes)
        self.rate = rate

    def forward(self, x):
        hidden = self.hidden(x.flatten(1)).relu()
        hidden = F.dropout(hidden, self.rate, self.training)
        return self.head(hidden)


class Whitened(nn.Module):
    """Features about running means, which move in training alone."""

    def __init__(self, input_shape, classes):
        super().__init__()
        size = math.prod(input_shape)
        self.register_buffer("mean", torch.zeros(size))
        self.head = nn.Linear(size, classes)

    def forward(self, x):
        flat = x.flatten(1)
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(flat.mean(0), 0.1)
        return self.head(flat - self.mean)


class Patches(nn.Module):
    """Attention over the columns of an image, with positions."""

    def __init__(self, input_shape, classes, width=8):
        super().__init__()
        size, count = math.prod(input_shape[:-1]), input_shape[-1]
        self.embed = nn.Linear(size, width)
        steps = torch.linspace(-1, 1, count)
        self.register_buffer("positions", steps[:, None] * torch.ones(width))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        tokens = self.embed(x.flatten(1, -2).transpose(1, 2)) + self.positions
        scores = self.query(tokens) @ self.key(tokens).transpose(1, 2) / math.sqrt(tokens.shape[-1])
        mixed = tokens + scores.softmax(-1) @ self.value(tokens)
        return self.head(mixed.mean(1))
