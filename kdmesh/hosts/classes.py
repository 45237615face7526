"""Labels by the columns of an agent that knows some classes only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.metric import own_classes
from kdmesh.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def labels(y: Tensor, classes: Sequence[int] | None) -> Signal:
    """Labels as one learns them who knows only some classes: by its own columns, other samples with weight 0."""
    if classes is None:
        return Signal(y, "labels")
    own, known = own_classes(y, classes)
    return Signal(own, "labels", known.float())
