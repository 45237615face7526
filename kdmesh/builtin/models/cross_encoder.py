"""A cross-encoder of vectors: it reads a query and a candidate together, which costs a forward for each pair.

Nogueira and Cho, "Passage Re-ranking with BERT", 2019, for texts and a transformer; here for vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdmesh.builtin.models._lists import features, layers, missing, scored

if TYPE_CHECKING:
    from collections.abc import Sequence


class CrossEncoder(nn.Module):
    """``layers.0``, ``layers.1`` ... on ``[q, d, q * d, |q - d|]`` of a query q and a candidate d, then ``head``.

    ``forward(x [B, 1 + L, ...]) -> scores [B, L]``, the query first; a tap on ``layers.i`` gives
    ``[B, L, hidden[i]]``. A candidate of zeros is none, and has the score ``-inf``.
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
        width = 4 * features(input_shape, classes, "cross_encoder")
        self.layers = layers(width, hidden, dropout, activation)
        self.head = nn.Linear(hidden[-1] if hidden else width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``[B, L]``."""
        query, candidates = x[:, :1].flatten(2), x[:, 1:].flatten(2)
        both = query.expand_as(candidates)
        pairs = torch.cat([both, candidates, both * candidates, (both - candidates).abs()], -1)
        return scored(self.head(self.layers(pairs)).squeeze(-1), missing(candidates))
