"""The multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class MLP(nn.Module):
    """``layers.0``, ``layers.1`` ... (linear, activation, dropout), then ``head``; input of any shape is flattened.

    ``forward(x [B, ...]) -> logits [B, classes]``; a tap on ``layers.i`` gives ``[B, hidden[i]]``.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        hidden: Sequence[int] = (64,),
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    OrderedDict(
                        linear=nn.Linear(inputs, outputs),
                        activation=ACTIVATIONS[activation](),
                        dropout=nn.Dropout(dropout),
                    )
                )
                for inputs, outputs in pairwise(widths)
            )
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        return self.head(self.layers(x.flatten(1)))
