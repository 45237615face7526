"""Rules that read the true class say so where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.consensus import Rule
    from torch import Tensor


def known(rule: Rule, labels: Tensor | None) -> Tensor:
    """Return the labels ``[B]``; MeshError for a stream without."""
    if labels is None:
        raise MeshError(
            f"{type(rule).__name__} compares its sources on labels, and this stream has none",
            instead="a stream with labels, or a rule without: mean, entropy, median",
        )
    return labels
