"""What the model gives, as it is: the engine carries it without calling anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Plain:
    """``make(value) = value``."""

    def __call__(self, value: Tensor) -> Tensor:
        """Return the value."""
        return value
