"""Attention heads are left out, as many in each layer.

Michel et al., Are Sixteen Heads Really Better than One?, 2019; which, here by the norm of their weights: the product
of those of their queries, keys, values and output. Where queries share keys and values, a head is one of these
with all its queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.hosts.compression.smaller import left_of, without_units

if TYPE_CHECKING:
    from kdmesh.spec.prune import HeadsPrune


def prune(net: Any, how: HeadsPrune) -> Any:
    """A model with fewer heads. MeshError where none would be left, or where heads have no size of their own."""
    config = net.config.get_text_config()
    queries = getattr(config, "num_attention_heads", None)
    if not isinstance(queries, int):
        raise MeshError(f"{config.model_type} has no number of heads", instead="layers: {drop: 1}")
    heads = getattr(config, "num_key_value_heads", None) or queries
    size = getattr(config, "head_dim", None) or config.hidden_size // queries
    gone = how.drop if isinstance(how.drop, list) else list(range(how.drop))
    left = left_of(gone, heads, "head")
    changes = {"num_attention_heads": queries // heads * len(left), "head_dim": size}
    if hasattr(config, "num_key_value_heads"):
        changes["num_key_value_heads"] = len(left)
    kept = left if isinstance(how.drop, list) else len(left)
    return without_units(net, changes, heads, kept, {size, queries // heads * size}, "heads")
