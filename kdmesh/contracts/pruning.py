"""The interface of a pruning rule: it says what is taken out of a model's weights before it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class Pruning:
    """One thing that is taken out: units, by :meth:`smaller`, or single weights, by :meth:`left` and :meth:`zeros`.

    Which, says its offer (``takes``). A rule is made for one model and asked once, on the CPU, or, to know sizes ahead,
    on the `meta` device, where weights have shapes alone. It decides by these weights and its settings; draws are from
    torch's default generator, which is seeded. MeshError with ``where``, the setting, for what cannot be taken out.
    """

    def smaller(self, net: Any) -> Any:
        """A network of transformers of the same class, with fewer units, of a smaller configuration.

        What it computes with is taken from ``net``, which may be changed. See :mod:`kdmesh.text.smaller`.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no units")

    def left(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Which values of each weight are left, by name, bool and of its shape; the others become 0 and stay it.

        ``weights``: those of the linear and convolutional layers that were read from a file.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no single weights")

    def zeros(self, sizes: Sequence[int]) -> int:
        """How many values become 0, of weights with so many each: known before there are any."""
        raise NotImplementedError(f"{type(self).__name__} takes no single weights")
