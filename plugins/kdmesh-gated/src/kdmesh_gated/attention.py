"""OKDDip's attention: each peer has its own say in whom it listens to.

Chen, Mei, Wang, Feng and Chen, "Online Knowledge Distillation with Diverse Peers", 2020. The paper mixes predictions
(space `probs`), the published code logits (space `logits`); in both a peer may listen to itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from kdmesh.consensus import Rule, weighted_sum
from kdmesh.errors import MeshError
from torch import Tensor, nn

from kdmesh_gated._inputs import pooled, width
from kdmesh_gated.gate import shares

if TYPE_CHECKING:
    from collections.abc import Sequence


class Attention(Rule):
    """Target a gets ``sum_b alpha_ab value_b`` with ``alpha_ab = softmax_b(q_a · k_b)``, per sample.

    ``q_a = W_q h_a`` and ``k_b = W_k h_b``, of ``width // reduction`` dimensions, no bias; ``h_a`` are the pooled
    features of source a: one input per source, in the same order and of one width. An absent source has weight 0, the
    others are renormalised. For a target that is no source, or for nobody, there is no answer: MeshError.
    """

    def __init__(self, reduction: int = 8) -> None:
        super().__init__()
        self.reduction = reduction
        self.sources: tuple[str, ...] = ()

    def setup(self, sources: tuple[str, ...], classes: int, inputs: tuple[torch.Size, ...]) -> None:
        """Build the projections; called once, before training. MeshError where inputs do not fit the sources."""
        widths = sorted({width(shape) for shape in inputs})
        if len(inputs) != len(sources):
            raise MeshError(
                f"attention has {len(sources)} sources and {len(inputs)} inputs",
                instead="one flow `as: input` for each source, in the same order",
            )
        if len(widths) > 1:
            raise MeshError(
                f"the features of the sources have different widths: {', '.join(map(str, widths))}",
                instead="taps of layers of one width",
            )
        self.sources = sources
        size = max(1, widths[0] // self.reduction)
        self.query = nn.Linear(widths[0], size, bias=False)
        self.key = nn.Linear(widths[0], size, bias=False)

    def forward(
        self,
        values: Tensor,
        *,
        logits: Tensor,
        labels: Tensor | None = None,
        present: Tensor | None = None,
        inputs: Sequence[Tensor | None] = (),
        target: str | None = None,
    ) -> Tensor:
        """Combine ``values [M, B, C]`` for one of the sources, informed by their features, signals ``[B, ...]``."""
        if target not in self.sources:
            raise MeshError(
                f"attention has no query for {target!r}, which is none of its sources",
                instead=f"flows to {', '.join(self.sources)}; another rule for the rest",
            )
        features = torch.stack(pooled(inputs, self.query.weight.dtype))
        query = self.query(features[self.sources.index(target)])
        scores = (self.key(features) * query).sum(-1)
        return weighted_sum(values, shares(scores, values, present))
