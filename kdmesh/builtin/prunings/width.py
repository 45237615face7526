"""Hidden units of a transformer are left out, the same in all layers: what runs through it becomes narrower.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation, 2024, who choose embedding channels
by activations on data; here by the norm of weights: the product of those of all matrices that read or write a unit.
Where heads have a size of their own (llama, qwen, gemma ...) they stay as they are; else (bert, roberta, vit ...) they
are a part of the width, and as great a share of them goes in each layer (Michel et al., Are Sixteen Heads Really Better
than One?, 2019), by the same measure.
"""

from __future__ import annotations

from typing import Any

from kdmesh.contracts.pruning import Pruning
from kdmesh.errors import MeshError
from kdmesh.text.smaller import Cut, heads_of, of_heads, without_units


class Width(Pruning):
    """``share``: of the hidden units that goes."""

    def __init__(self, share: float) -> None:
        self.share = share

    def smaller(self, net: Any) -> Any:
        """A narrower model. MeshError where nothing would be left, or heads do not divide it."""
        config = net.config.get_text_config()
        width: int = config.hidden_size
        if getattr(config, "head_dim", None) is not None:
            left = self._left(width, "hidden units")
            changes = {"hidden_size": left, "head_dim": config.head_dim}
            return without_units(net, changes, [Cut(width, left, {1}, apart=False)], "hidden units")
        heads, _, size = heads_of(config)
        few = self._left(heads, "heads, of which hidden units are a part,")
        cuts = [Cut(heads, few, {size}, of_heads), Cut(width, few * size, {1}, apart=False)]
        return without_units(net, {"hidden_size": few * size, "num_attention_heads": few}, cuts, "hidden units")

    def _left(self, count: int, what: str) -> int:
        left = count - round(self.share * count)
        if not 0 < left < count:
            said = f"{self.share:g} of {count} {what} is {'all' if not left else 'none'} of them"
            raise MeshError(said, where="share", instead=f"a share that leaves 1 to {count - 1}")
        return left
