"""Multiplicative weights: a consensus that trusts a source less with each batch on which it is wrong.

Freund and Schapire, "A Decision-Theoretic Generalization of On-Line Learning and an Application to Boosting", Journal
of Computer and System Sciences 55(1), 1997 (Hedge). Sources are the experts, batches the trials.

A rule with state: its offer says `stateful`, the state is a buffer, and it moves in training mode only, so that
measuring leaves it alone. Checkpoints hold it, `report` puts it into the summary, and `kdmesh.load` reads it.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

import kdmesh
from kdmesh.offers import Config, ConsensusOffer


class Settings(Config):
    """Settings of the rule."""

    rate: float = Field(0.5, gt=0, description="how fast trust is lost: a batch all wrong costs a factor exp(-rate)")


def hedge(rate: float) -> Any:
    """The rule; torch is imported here, not where the offers are read."""
    import torch
    from torch import Tensor

    from kdmesh.consensus import Rule, present_of, silenced

    class Hedge(Rule):
        """``w_i <- w_i exp(-rate l_i)`` after each batch, with ``l_i`` in [0, 1]: the mean of ``1 - p_i(y)``.

        A batch is combined by the weights as they stand before it. They begin equal, and are normalised over the
        sources that are present. Rows in which a source is absent say nothing about it.
        """

        def setup(self, sources: tuple[str, ...], classes: int, inputs: tuple[torch.Size, ...]) -> None:
            self.sources = sources
            self.register_buffer("log_weights", torch.zeros(len(sources)))

        def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
            """Weights ``[M, B]`` of logits ``[M, B, C]`` and labels ``[B]``."""
            here = present_of(logits, present)
            alone = self.log_weights.to(logits.dtype)[:, None].expand(here.shape).masked_fill(~here, -torch.inf)
            weights = torch.where(here.any(0), alone.softmax(0), 0.0)
            if self.training and labels is not None:
                probs = silenced(logits.detach(), present).softmax(-1)
                wrong = 1 - probs.gather(-1, labels.expand(here.shape)[..., None])[..., 0]
                losses = (wrong * here).sum(1) / here.sum(1).clamp(min=1)
                moved = self.log_weights - rate * losses.to(self.log_weights.dtype)
                self.log_weights = moved - moved.amax()  # of the best source 0: none of them underflows for long
            return weights

        def report(self) -> dict[str, float]:
            """The weight of each source, as it stands."""
            return dict(zip(self.sources, self.log_weights.softmax(0).tolist(), strict=True))

    return Hedge()


RULE = ConsensusOffer(
    "multiplicative_weights",
    "multiplicative_weights:hedge",
    Settings,
    "sources lose weight with each batch on which they are wrong",
    "Freund and Schapire, A Decision-Theoretic Generalization of On-Line Learning, 1997",
    needs_labels=True,
    stateful=True,
)


@kdmesh.hookimpl
def kdmesh_consensus() -> list[ConsensusOffer]:
    """Offer the rule."""
    return [RULE]
