"""The class with most votes, noise included, where these agree: Confident-GNMax.

Papernot, Song, Mironov, Raghunathan, Talwar and Erlingsson, "Scalable Private Learning with PATE", 2018, Algorithm 1.
The noise, and what it costs, are :mod:`kdmesh.privacy.mechanisms.confident_gnmax`'s.
"""

from __future__ import annotations

from kdmesh.builtin.consensus._votes import Votes
from kdmesh.builtin.consensus.offers import ConfidentGNMaxConfig
from kdmesh.spec.settings import checked_by


@checked_by(ConfidentGNMaxConfig)
class ConfidentGNMax(Votes):
    """The most votes for a class, with noise of deviation ``sigma1``, must reach ``threshold`` for an answer.

    Where they do, counts with noise of deviation ``sigma2`` say which class. Samples have no answer once the budget is
    spent, either.
    """

    def __init__(self, threshold: float, sigma1: float, sigma2: float) -> None:
        super().__init__()
        self.threshold, self.sigma1, self.sigma2 = threshold, sigma1, sigma2
