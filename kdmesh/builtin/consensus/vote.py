"""Plurality vote.

Papernot, Abadi, Erlingsson, Goodfellow and Talwar, "Semi-supervised Knowledge Transfer for Deep Learning from Private
Training Data", 2017, where noise is added to the counts; there is none here.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.consensus._base import normalised, present_of
from kdmesh.contracts.rule import Rule


class Vote(Rule):
    """Each present source votes for its first most probable class; the winner takes all, tied winners share equally.

    Exactly invariant to the order of sources. Without gradient.
    """

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return distributions ``[B, C]``."""
        ballots = F.one_hot(values.argmax(-1), values.shape[-1]) * present_of(values, present)[..., None]
        counts = ballots.sum(0)
        return normalised((counts == counts.amax(-1, keepdim=True)).to(values.dtype))
