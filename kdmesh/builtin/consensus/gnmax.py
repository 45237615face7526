"""The class with most votes, noise included: GNMax.

Papernot, Song, Mironov, Raghunathan, Talwar and Erlingsson, "Scalable Private Learning with PATE", 2018, Section 4.1.
The noise, and what it costs, are :mod:`kdmesh.privacy.mechanisms.gnmax`'s.
"""

from __future__ import annotations

from kdmesh.builtin.consensus._votes import Votes
from kdmesh.builtin.consensus.offers import GNMaxConfig
from kdmesh.spec.settings import checked_by


@checked_by(GNMaxConfig)
class GNMax(Votes):
    """One vote a source, and noise of deviation ``sigma`` on each class's count; the largest sum wins.

    Samples have no answer once the budget is spent.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
