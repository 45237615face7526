"""Whole layers of a transformer are left out.

Sajjad et al., On the Effect of Dropping Layers of Pre-trained Transformer Models, 2023: the last ones, or every second
one from the end.
"""

from __future__ import annotations

from typing import Any

from kdmesh.contracts.pruning import Pruning
from kdmesh.errors import MeshError
from kdmesh.text.loading import keep_layers
from kdmesh.text.smaller import built_like, left_of


class Layers(Pruning):
    """``drop``: how many, or which; ``by``: which of so many."""

    def __init__(self, drop: int | list[int], by: str | None = None) -> None:
        self.drop, self.alternate = drop, by == "alternate"

    def smaller(self, net: Any) -> Any:
        """A model of the layers that are left. MeshError where none would be."""
        count = net.config.get_text_config().num_hidden_layers
        gone = self.drop if isinstance(self.drop, list) else self._last(self.drop, count)
        return keep_layers(net, left_of(gone, count, "layer"), built_like(net), "")

    def _last(self, many: int, count: int) -> list[int]:
        if not self.alternate:
            return list(range(count - many, count)) if many <= count else list(range(many))
        if 2 * many > count:
            what = f"every second one of {count} layers are {count // 2}, and {many} are to go"
            raise MeshError(what, where="drop", instead=f"at most {count // 2}, or by: last")
        return [count - 2 - 2 * number for number in range(many)]
