"""Top-k logits: a few numbers of each row in place of thousands; what stood in the tail is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.signals.sparse import TopKLogits

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.signals.lazy import Lazy


class TopK:
    """``make(logits [N, C]) -> Sparse [N, C]``: the k likeliest columns; the rest of the mass evenly over the others.

    Outputs that the source rules out (-inf) get nothing of it.

    The readers' temperature softens that distribution, which is not the source's at this temperature: a flat tail gains
    more. No gradient passes.
    """

    def __init__(self, k: int) -> None:
        self.k = k

    def __call__(self, value: Tensor | Lazy) -> TopKLogits:
        """Return the columns, from large logits some rows at a time.

        Raises MeshError where there are fewer than k columns.
        """
        if self.k > value.shape[1]:
            raise MeshError(
                f"the signal top_k asks for the likeliest {self.k} of {value.shape[1]} outputs",
                instead=f"k: {value.shape[1]}, or less",
            )
        return TopKLogits.top(value, self.k)
