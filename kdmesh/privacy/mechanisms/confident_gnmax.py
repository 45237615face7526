"""Votes that abstain, Confident-GNMax: Papernot et al., "Scalable Private Learning with PATE", 2018, Algorithm 1.

First it is asked whether votes agree (:mod:`~kdmesh.privacy.mechanisms.agreement`, with noise of sigma1, large), then
which class won (:mod:`~kdmesh.privacy.mechanisms.gnmax`, with noise of sigma2), of those rows alone that did. Released
is the class, or -1: no answer. Each asked row costs the first, each answered row the second, too. How many are answered
is released by the first, so that an account may count it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.privacy.mechanisms.agreement import Agreement
from kdmesh.privacy.mechanisms.gnmax import GNMax

if TYPE_CHECKING:
    import numpy as np

    from kdmesh.privacy.gaussian import Noise
    from kdmesh.privacy.mechanisms._base import Draw, Mechanism

ABSTAINS = -1


class ConfidentGNMax:
    """The class with most votes, or -1 where these do not agree enough.

    Args:
        threshold: how many votes one class must have, noise included.
        sigma1: deviation of the noise by which that is decided.
        sigma2: of the noise by which the class is.
        unit: who is protected, see :mod:`kdmesh.privacy.sensitivity`.
        adjacency: against what.
    """

    name = "confident_gnmax"
    released = "the class with most votes, noise included, or that too few agree"
    disjoint = True

    def __init__(self, threshold: float, sigma1: float, sigma2: float, unit: str, adjacency: str) -> None:
        self.agreement = Agreement(threshold, sigma1, unit, adjacency)
        self.gnmax = GNMax(sigma2, unit, adjacency)
        self.unit, self.adjacency = unit, adjacency

    @property
    def parts(self) -> tuple[Mechanism, ...]:
        """Whether votes agree, of each row; and the class, of those that do."""
        return (self.agreement, self.gnmax)

    def release(self, values: np.ndarray, first: Noise, second: Noise) -> np.ndarray:
        """The class of each row, or -1, ``[N]``; ``second`` is noise for the rows alone that ``first`` lets through."""
        return self.answer(values, lambda part, rows: first if part is self.agreement else second)

    def answer(self, values: np.ndarray, draw: Draw) -> np.ndarray:
        """The same, with noise that is charged for before it is drawn."""
        import numpy as np

        found = np.full(len(values), ABSTAINS)
        agreed = np.flatnonzero(self.agreement.release(values, draw(self.agreement, np.arange(len(values)))))
        if len(agreed):
            found[agreed] = self.gnmax.release(values[agreed], draw(self.gnmax, agreed))
        return found
