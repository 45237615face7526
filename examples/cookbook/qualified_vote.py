"""A vote that may go without an answer: the winner needs a share of those who voted.

Lam and Suen, "Application of majority voting to pattern recognition: an analysis of its behavior and performance", IEEE
Transactions on Systems, Man, and Cybernetics A 27(5), 1997: what a majority does not agree on is rejected.

A rule that `abstains` returns values and who was answered. Rows without an answer teach nobody; the summary says, under
`answered`, how many rows were, and how often the answers were right.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

import kdmesh
from kdmesh.offers import Config, ConsensusOffer


class Settings(Config):
    """Settings of the rule."""

    quorum: float = Field(0.5, ge=0, lt=1, description="a class wins with more than this share of the votes")


def qualified(quorum: float) -> Any:
    """The rule; torch is imported here, not where the offers are read."""
    from torch import Tensor
    from torch.nn import functional as F

    from kdmesh.consensus import Abstaining, normalised, present_of

    class Qualified(Abstaining):
        """Each present source votes for its most probable class; the answer is the class with more than the quorum.

        ``votes_c > quorum * sum_c votes_c``. With a quorum below a half several classes may win: they share the answer
        in proportion to their votes.
        """

        def forward(
            self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
        ) -> tuple[Tensor, Tensor]:
            """Return distributions ``[B, C]``, and who was answered ``[B]``."""
            here = present_of(values, present)
            votes = (F.one_hot(values.argmax(-1), values.shape[-1]) * here[..., None]).sum(0)
            winners = votes > quorum * here.sum(0)[:, None]
            return normalised((votes * winners).to(values.dtype)), winners.any(-1)

    return Qualified()


RULE = ConsensusOffer(
    "qualified_vote",
    "qualified_vote:qualified",
    Settings,
    "the class with more than a share of the votes; else no answer",
    "Lam and Suen, Application of majority voting to pattern recognition, 1997",
    spaces=("probs",),
    abstains=True,
)


@kdmesh.hookimpl
def kdmesh_consensus() -> list[ConsensusOffer]:
    """Offer the rule."""
    return [RULE]
