"""A residual network for small images.

K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image recognition", CVPR 2016, arXiv 1512.03385,
section 4.2: three stages of basic blocks, 6n + 2 layers. Here shortcuts that change shape are projections (option B).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from kdmesh.builtin.models._shape import image

if TYPE_CHECKING:
    from collections.abc import Sequence


class Block(nn.Module):
    """``relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))))``, of ``[B, inputs, H, W]``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, outputs, ceil(H / stride), ceil(W / stride)]``."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """``stem``, stages ``layers.0`` to ``layers.2``, mean over pixels, ``head``.

    ``forward(x [B, C, H, W]) -> logits [B, classes]``; a tap on ``layers.i`` gives maps of ``width * 2**i`` channels,
    height and width halved (rounded up) i times.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, width: int = 16, blocks: int = 1) -> None:
        super().__init__()
        channels, _, _ = image(input_shape, "resnet")
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        stages = []
        inputs = width
        for stage in range(3):
            outputs = width << stage
            first = Block(inputs, outputs, stride=1 if stage == 0 else 2)
            stages.append(nn.Sequential(first, *(Block(outputs, outputs, stride=1) for _ in range(blocks - 1))))
            inputs = outputs
        self.layers = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        return self.head(self.layers(self.stem(x)).mean((2, 3)))
