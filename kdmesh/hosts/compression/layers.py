"""Whole layers of a transformer are left out.

Sajjad et al., On the Effect of Dropping Layers of Pre-trained Transformer Models, 2023: the last ones, or every second
one from the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.hosts.compression.smaller import built_like, left_of
from kdmesh.text.loading import keep_layers

if TYPE_CHECKING:
    from kdmesh.spec.prune import LayersPrune


def prune(net: Any, how: LayersPrune) -> Any:
    """A model of the layers that are left. MeshError where none would be."""
    count = net.config.get_text_config().num_hidden_layers
    gone = how.drop if isinstance(how.drop, list) else _last(how.drop, how.by == "alternate", count)
    return keep_layers(net, left_of(gone, count, "layer"), built_like(net), "")


def _last(many: int, alternate: bool, count: int) -> list[int]:
    if not alternate:
        return list(range(count - many, count)) if many <= count else list(range(many))
    if 2 * many > count:
        what = f"every second one of {count} layers are {count // 2}, and {many} are to go"
        raise MeshError(what, where="drop", instead=f"at most {count // 2}, or by: last")
    return [count - 2 - 2 * number for number in range(many)]
