"""Plurality vote that answers only where enough sources agree.

Papernot, Song, Mironov, Raghunathan, Talwar and Erlingsson, "Scalable Private Learning with PATE", 2018
(Confident-GNMax), where noise is added to the counts, for the threshold and again for the vote; there is none here, and
so no privacy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.consensus._base import normalised, present_of
from kdmesh.builtin.consensus.offers import ThresholdVoteConfig
from kdmesh.contracts.rule import Abstaining
from kdmesh.errors import MeshError
from kdmesh.spec.settings import checked_by

if TYPE_CHECKING:
    from collections.abc import Sequence


@checked_by(ThresholdVoteConfig)
class ThresholdVote(Abstaining):
    """The winner of `vote` where at least ``votes`` present sources vote for it; elsewhere no answer.

    Each present source votes for its first most probable class; tied winners share equally. Exactly invariant to the
    order of sources. Without gradient.
    """

    def __init__(self, votes: int) -> None:
        super().__init__()
        self.votes = votes

    def setup(self, sources: tuple[str, ...], classes: int, inputs: Sequence[torch.Size]) -> None:
        """MeshError where there are fewer sources than votes are asked for: nobody would ever be answered."""
        del classes, inputs
        if self.votes > len(sources):
            raise MeshError(
                f"{self.votes} votes are asked for, and there are {len(sources)} sources: no sample would be answered",
                where="votes",
                instead=f"votes: {len(sources) // 2 + 1}",
            )

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return distributions ``[B, C]``, and who was answered ``[B]``."""
        ballots = F.one_hot(values.argmax(-1), values.shape[-1]) * present_of(values, present)[..., None]
        counts = ballots.sum(0)
        most = counts.amax(-1, keepdim=True)
        return normalised((counts == most).to(values.dtype)), most[:, 0] >= self.votes
