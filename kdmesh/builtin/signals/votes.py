"""Votes: the class an agent holds most likely, and nothing else.

Papernot, Abadi, Erlingsson, Goodfellow and Talwar, "Semi-supervised Knowledge Transfer for Deep Learning from Private
Training Data", 2017: teachers vote, and only counts of votes are seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


class Votes:
    """``make(logits [..., C]) -> [..., C]``: 1 at the largest logit (the first, if several are equal), else 0."""

    def __call__(self, value: Tensor) -> Tensor:
        """Return the votes, of the logits' type."""
        return F.one_hot(value.argmax(-1), value.shape[-1]).to(value.dtype)
