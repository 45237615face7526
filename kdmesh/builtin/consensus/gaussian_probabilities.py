"""Mean probabilities with Gaussian noise on each.

Dwork and Roth, "The Algorithmic Foundations of Differential Privacy", 2014, Appendix A. The noise, and what it costs,
are :mod:`kdmesh.privacy.mechanisms.gaussian_probabilities`'s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import normalised, present_of, silenced
from kdmesh.builtin.consensus.offers import GaussianProbabilitiesConfig
from kdmesh.contracts.rule import Releasing
from kdmesh.spec.settings import checked_by


@checked_by(GaussianProbabilitiesConfig)
class GaussianProbabilities(Releasing):
    """The mean of the present sources' distributions, with noise of deviation ``sigma`` on each class.

    Whatever one sample does to any of them, the mean stays a distribution, and two of these are at most sqrt 2 apart.
    What comes of it is put back among the distributions: less than nothing is nothing, and the rest adds up to 1.
    Samples have no answer once the budget is spent.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def private(self, values: Tensor, present: Tensor | None = None) -> Tensor:
        """Distributions ``[B, C]`` in float64; uniform where nobody is present."""
        known = present_of(values, present) & values.isfinite().all(-1)
        given = normalised(silenced(values.double(), known))  # clipped: no part below 0, and a sum of 1
        total = torch.where(known[..., None], given, 0.0).sum(0)
        return normalised(total / known.sum(0).clamp(min=1)[:, None]).cpu()

    def public(self, answers: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The nearest distributions in L1, by clipping, and which rows ``[B]`` were answered: others hold NaN."""
        answered = ~answers.isnan().any(-1)
        return normalised(answers.nan_to_num()), answered
