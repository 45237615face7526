"""Hidden units of a transformer are left out, the same in all layers: what runs through it becomes narrower.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation, 2024, who choose embedding channels
by activations on data; here by the norm of weights: the product of those of all matrices that read or write a unit.
Where heads can have a size of their own (llama, qwen, gemma, T5 ...) they stay as they are; else (bert, roberta, vit
...) they are a part of the width, and as great a share of them goes in each layer (Michel et al., Are Sixteen Heads
Really Better than One?, 2019), by the same measure.
"""

from __future__ import annotations

from typing import Any

from kdmesh.contracts.pruning import Pruning
from kdmesh.errors import MeshError
from kdmesh.text.smaller import Cut, heads_of, of_heads, without_units

AS_WIDE = ("pooler_hidden_size", "embedding_size", "word_embed_proj_dim")
"""What some architectures have in their configuration beside the width, and as wide."""


class Width(Pruning):
    """``share``: of the hidden units that goes."""

    def __init__(self, share: float) -> None:
        self.share = share

    def smaller(self, net: Any) -> Any:
        """A narrower model. MeshError where nothing would be left, or it is none that can be made narrower."""
        config = net.config.get_text_config()
        width: int = config.hidden_size
        queries, heads, size = heads_of(config)
        more = [name for name in AS_WIDE if getattr(config, name, None) == width]
        left = self._left(width, "hidden units")
        changes = {"hidden_size": left, "head_dim": size, **dict.fromkeys(more, left)}
        try:
            return without_units(net, changes, [Cut(width, left, {1}, apart=False)], "hidden units", of_heads)
        except MeshError:
            if heads != queries or queries * size != width:
                raise
        few = self._left(heads, "heads, of which hidden units are a part,")
        left = few * size
        changes = {"hidden_size": left, "num_attention_heads": few, **dict.fromkeys(more, left)}
        if hasattr(config, "num_key_value_heads"):
            changes["num_key_value_heads"] = few
        cuts = [Cut(heads, few, {size}, of_heads), Cut(width, left, {1}, apart=False)]
        return without_units(net, changes, cuts, "hidden units")

    def _left(self, count: int, what: str) -> int:
        left = count - round(self.share * count)
        if not 0 < left < count:
            said = f"{self.share:g} of {count} {what} is {'all' if not left else 'none'} of them"
            raise MeshError(said, where="share", instead=f"a share that leaves 1 to {count - 1}")
        return left
