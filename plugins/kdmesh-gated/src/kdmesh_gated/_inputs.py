"""What informs a rule: signals of any shape, read as one vector per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor


def pooled(inputs: Sequence[Tensor | None], dtype: torch.dtype) -> list[Tensor]:
    """One ``[B, D]`` of each input: maps averaged over pixels, tokens ``[B, N, D]`` over tokens, vectors as they are.

    MeshError for an input that has not been published yet.
    """
    vectors = []
    for signal in inputs:
        if signal is None:
            raise MeshError("an input has said nothing yet", instead="`refresh: step` on the flows `as: input`")
        vector = signal.flatten(2).mean(2) if signal.dim() > 3 else signal.mean(1) if signal.dim() == 3 else signal
        vectors.append(vector.to(dtype))
    return vectors


def width(shape: torch.Size) -> int:
    """The width D of a pooled signal, of its shape without the batch axis."""
    return shape[1] if len(shape) == 2 else shape[0]
