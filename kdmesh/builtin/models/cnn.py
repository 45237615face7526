"""The classic convolutional network: convolve, rectify, pool, and classify what is left."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from kdmesh.builtin.models._shape import image
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence


class CNN(nn.Module):
    """``layers.0``, ``layers.1`` ... (3x3 convolution, ReLU, 2x2 max pooling), then ``head`` on the flattened maps.

    Layer i has ``width * 2**i`` channels and maps of ``height >> (i + 1)`` by ``width >> (i + 1)`` pixels.
    ``forward(x [B, C, H, W]) -> logits [B, classes]``; a tap on ``layers.i`` gives its maps.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        channels, height, breadth = image(input_shape, "cnn")
        most = min(height, breadth).bit_length() - 1
        if depth > most:
            raise MeshError(
                f"{depth} poolings leave no pixels of {height}x{breadth}",
                where="model.cnn.depth",
                instead=f"a depth of at most {most}" if most else "mlp: the images are too small to pool",
            )
        widths = [channels, *(width << i for i in range(depth))]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    OrderedDict(
                        conv=nn.Conv2d(inputs, outputs, 3, padding=1), activation=nn.ReLU(), pool=nn.MaxPool2d(2)
                    )
                )
                for inputs, outputs in pairwise(widths)
            )
        )
        self.head = nn.Linear(widths[-1] * (height >> depth) * (breadth >> depth), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        return self.head(self.layers(x).flatten(1))
