"""Units of the feed-forward layers of a transformer are left out, as many in each layer.

Li et al., Pruning Filters for Efficient ConvNets, 2017, by the norm of weights: here the product of the norms of those
that lead into a unit and out of it.
"""

from __future__ import annotations

from typing import Any

from kdmesh.contracts.pruning import Pruning
from kdmesh.errors import MeshError
from kdmesh.text.smaller import Cut, without_units

WIDTHS = ("intermediate_size", "hidden_dim", "ffn_dim", "n_inner", "d_ff")  # what architectures call it


class Neurons(Pruning):
    """``share``: of the units of each layer that goes."""

    def __init__(self, share: float) -> None:
        self.share = share

    def smaller(self, net: Any) -> Any:
        """A model with narrower feed-forward layers. MeshError where none would be left."""
        config = net.config.get_text_config()
        name = next((one for one in WIDTHS if hasattr(config, one)), None)
        if name is None:
            raise MeshError(f"{config.model_type} does not say how wide its feed-forward layers are", instead="layers")
        width = getattr(config, name) or 4 * config.hidden_size  # as gpt2 reads none
        left = width - round(self.share * width)
        if not 0 < left < width:
            what = f"{self.share:g} of {width} units is {'all' if not left else 'none'} of them"
            raise MeshError(what, where="share", instead=f"a share that leaves 1 to {width - 1}")
        return without_units(net, {name: left}, [Cut(width, left, {1})], "feed-forward units")
