"""A bi-encoder of vectors: queries and candidates are embedded each alone, so that embeddings can be stored.

Reimers and Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", 2019, for texts and a
transformer; here for vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from kdmesh.builtin.models._lists import features, layers, missing, scored

if TYPE_CHECKING:
    from collections.abc import Sequence


class BiEncoder(nn.Module):
    """``layers.0``, ``layers.1`` ..., then ``head``, of queries and candidates alike, and the product of embeddings.

    ``forward(x [B, 1 + L, ...]) -> scores [B, L]``, the query first: ``scale <e_q, e_d>``, with ``similarity`` cosine
    of embeddings of length 1. A tap on ``embedding`` gives ``[B, 1 + L, E]``, zeros where there is no candidate, which
    has the score ``-inf``: a candidate of zeros is none.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        hidden: Sequence[int] = (64,),
        dropout: float = 0.0,
        activation: str = "relu",
        embedding: int = 32,
        similarity: str = "dot",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        width = features(input_shape, classes, "bi_encoder")
        self.layers = layers(width, hidden, dropout, activation)
        self.head = nn.Linear(hidden[-1] if hidden else width, embedding)
        self.embedding = nn.Identity()
        self.cosine, self.scale = similarity == "cosine", scale

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``[B, L]``."""
        x = x.flatten(2)
        absent = missing(x[:, 1:])
        embedded = self.head(self.layers(x))
        embedded = F.normalize(embedded, dim=-1) if self.cosine else embedded
        embedded = self.embedding(embedded.masked_fill(F.pad(absent, (1, 0))[..., None], 0))
        scores = (embedded[:, 1:] @ embedded[:, 0, :, None]).squeeze(-1)
        return scored(scores if self.scale == 1 else self.scale * scores, absent)
