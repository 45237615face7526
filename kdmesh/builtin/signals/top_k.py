"""Top-k logits: a few numbers of each row in place of thousands; what stood in the tail is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.signals.sparse import TopKLogits

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.signals.lazy import Lazy


class TopK:
    """``make(logits [N, C]) -> Sparse [N, C]``: the k likeliest columns, and what becomes of the rest of the mass.

    That is `tail`: see :class:`kdmesh.signals.sparse.TopKLogits`. Outputs that the source rules out (-inf) get nothing
    of a tail that is spread.

    The readers' temperature softens what is compared, which is not what the source says at this temperature: a flat
    tail gains more, and a bucket counts as one outcome; `renormalise` alone is exact at any. No gradient passes.
    """

    def __init__(self, k: int, tail: str = "spread") -> None:
        self.k, self.tail = k, tail

    def __call__(self, value: Tensor | Lazy) -> TopKLogits:
        """Return the columns, from large logits some rows at a time.

        Raises MeshError where there are fewer than k columns.
        """
        if self.k > value.shape[1]:
            raise MeshError(
                f"the signal top_k asks for the likeliest {self.k} of {value.shape[1]} outputs",
                instead=f"k: {value.shape[1]}, or less",
            )
        return TopKLogits.top(value, self.k, self.tail)
