"""What rules share that answer with noisy votes: counts in, classes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.consensus._base import present_of
from kdmesh.contracts.rule import Releasing

if TYPE_CHECKING:
    import torch


class Votes(Releasing):
    """Each present source votes once, for its first most probable class; a source that says no numbers has no vote."""

    def private(self, values: Tensor, present: Tensor | None = None) -> Tensor:
        """Counts of votes ``[B, C]``, whole numbers."""
        known = present_of(values, present) & values.isfinite().all(-1)
        ballots = F.one_hot(values.nan_to_num().argmax(-1), values.shape[-1]) * known[..., None]
        return ballots.sum(0).cpu()

    def public(self, answers: Tensor, classes: int) -> tuple[Tensor, torch.Tensor]:
        """One-hot distributions of the classes ``[B]``, of which -1 is none."""
        return F.one_hot(answers.clamp_min(0), classes).float(), answers >= 0
