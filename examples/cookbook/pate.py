"""PATE: teachers of private shards vote with noise about public samples, and answer only where they agree.

Papernot, Abadi, Erlingsson, Goodfellow and Talwar, "Semi-supervised Knowledge Transfer for Deep Learning from Private
Training Data", ICLR 2017, arXiv 1610.05755. The mechanism here, Confident-GNMax, is of Papernot, Song, Mironov,
Raghunathan, Talwar and Erlingsson, "Scalable Private Learning with PATE", ICLR 2018, arXiv 1802.08908.

A rule that abstains, draws from torch's generator (the engine seeds it by node and step), counts in buffers and
reports. Whoever knows the mesh's `seed` knows the noise: keep it secret where the bound is to mean something. Figures
of the consensus on validation and test are of noise of their own, and not in the bound.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Any

from pydantic import Field

import kdmesh
from kdmesh.offers import Config, ConsensusOffer


class Settings(Config):
    """Settings of the rule."""

    threshold: float = Field(gt=0, description="votes that the winner needs, noise included")
    doubt: float = Field(gt=0, description="standard deviation of the noise on the largest count, for the threshold")
    noise: float = Field(gt=0, description="standard deviation of the noise on each count, for the answer")
    delta: float = Field(1e-5, gt=0, lt=1, description="of the guarantee that is reported")


def gnmax(threshold: float, doubt: float, noise: float, delta: float) -> Any:
    """The rule; torch is imported here, not where the offers are read."""
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from kdmesh.consensus import Abstaining, present_of

    class GNMax(Abstaining):
        """``argmax_c (votes_c + N(0, noise^2))`` where ``max_c votes_c + N(0, doubt^2) >= threshold``; else no answer.

        Each present source has one vote, for its most probable class.

        `epsilon`, with `delta`, is the bound that does not look at the votes, of all questions as if each were
        answered. One sample changes one teacher, so a largest count by 1 and two counts by 1 each: Renyi divergences
        ``order / (2 doubt^2)`` and ``order / noise^2`` for each question. Summed to ``a order``, and by the best order,
        epsilon is ``a + 2 sqrt(a log(1 / delta))`` (Mironov, "Renyi Differential Privacy", 2017, arXiv 1702.07476).
        """

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("asked", torch.zeros((), dtype=torch.int64))
            self.register_buffer("answered", torch.zeros((), dtype=torch.int64))

        def forward(
            self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
        ) -> tuple[Tensor, Tensor]:
            """Return one-hot answers ``[B, C]``, and who was answered ``[B]``."""
            here = present_of(values, present)
            votes = (F.one_hot(values.argmax(-1), values.shape[-1]) * here[..., None]).sum(0).to(values.dtype)
            answered = votes.amax(-1) + doubt * torch.randn_like(votes[:, 0]) >= threshold
            chosen = (votes + noise * torch.randn_like(votes)).argmax(-1)
            if self.training:
                self.asked = self.asked + here.any(0).sum()
                self.answered = self.answered + (answered & here.any(0)).sum()
            return F.one_hot(chosen, votes.shape[-1]).to(votes.dtype), answered

        def report(self) -> dict[str, float]:
            """How many questions were asked and answered, and what they cost."""
            spent = self.asked.item() * (1 / (2 * doubt**2) + 1 / noise**2)
            epsilon = spent + 2 * sqrt(spent * log(1 / delta))
            return {"asked": self.asked.item(), "answered": self.answered.item(), "epsilon": epsilon}

    return GNMax()


RULE = ConsensusOffer(
    "pate",
    "pate:gnmax",
    Settings,
    "a noisy vote that is answered where a noisy majority agrees",
    "Papernot et al., Scalable Private Learning with PATE, 2018",
    spaces=("probs",),
    stateful=True,
    abstains=True,
)


@kdmesh.hookimpl
def kdmesh_consensus() -> list[ConsensusOffer]:
    """Offer the rule."""
    return [RULE]
