"""The source's logits at the outputs that its reader finds likeliest: where losses such as `reverse_kl` look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.signals.sparse import TopKLogits, likeliest

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.signals.lazy import Lazy


class ReaderTopK:
    """``make(logits [N, C], asked [N, k]) -> Sparse [N, C]``: the columns that are asked for, and the rest of the mass.

    Asked for are the k that the reader's own logits of the same rows find likeliest: a loss that weighs outputs by the
    student's probabilities, as `reverse_kl` does, reads little else. What becomes of the rest is `tail`: see
    :class:`kdmesh.signals.sparse.TopKLogits`. No gradient passes.
    """

    def __init__(self, k: int, tail: str = "spread") -> None:
        self.k, self.tail = k, tail

    def ask(self, value: Tensor | Lazy) -> Tensor:
        """The columns of the reader's logits ``[N, C]`` that it finds likeliest, ``[N, k]`` int32.

        Raises MeshError where there are fewer than k columns.
        """
        if self.k > value.shape[1]:
            raise MeshError(
                f"the signal reader_top_k asks for the likeliest {self.k} of {value.shape[1]} outputs",
                instead=f"k: {value.shape[1]}, or less",
            )
        return likeliest(value, self.k)

    def __call__(self, value: Tensor | Lazy, asked: Tensor) -> TopKLogits:
        """Return these columns of the source's logits, from large ones some rows at a time."""
        return TopKLogits.top(value, self.k, self.tail, asked)
