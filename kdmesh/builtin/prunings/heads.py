"""Attention heads are left out, as many in each layer.

Michel et al., Are Sixteen Heads Really Better than One?, 2019; which, here by the norm of their weights: the product
of those of their queries, keys, values and output. Where queries share keys and values, a head is one of these
with all its queries.
"""

from __future__ import annotations

from typing import Any

from kdmesh.contracts.pruning import Pruning
from kdmesh.text.smaller import Cut, heads_of, left_of, without_units


class Heads(Pruning):
    """``drop``: how many of each layer, or which in every layer."""

    def __init__(self, drop: int | list[int]) -> None:
        self.drop = drop

    def smaller(self, net: Any) -> Any:
        """A model with fewer heads. MeshError where none would be left, or where heads have no size of their own."""
        config = net.config.get_text_config()
        queries, heads, size = heads_of(config)
        gone = self.drop if isinstance(self.drop, list) else list(range(self.drop))
        left = left_of(gone, heads, "head" if heads == queries else "key-value head")
        changes = {"num_attention_heads": queries // heads * len(left), "head_dim": size}
        if hasattr(config, "num_key_value_heads"):
            changes["num_key_value_heads"] = len(left)
        kept = left if isinstance(self.drop, list) else len(left)
        return without_units(net, changes, [Cut(heads, kept, {size, queries // heads * size})], "heads")
