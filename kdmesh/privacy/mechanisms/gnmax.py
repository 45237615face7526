"""The noisy argmax of votes, GNMax: Papernot et al., "Scalable Private Learning with PATE", 2018, Section 4.1.

Released is the class whose count of votes is largest once noise has been added to each; of equal ones the first, as of
what has noise anything may be made. On any data an answer costs a D^2 / (2 sigma^2) at order a, by the L2 sensitivity D
of the counts: a / sigma^2 where one vote may change for another (Proposition 8 there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.privacy.mechanisms._base import Mechanism
from kdmesh.privacy.mechanisms.votes import counts
from kdmesh.privacy.pate import private_log_other
from kdmesh.privacy.sensitivity import OF_VOTES

if TYPE_CHECKING:
    import numpy as np

    from kdmesh.privacy.gaussian import Noise


class GNMax(Mechanism):
    """The class with most votes, noise included."""

    name = "gnmax"
    released = "the class with most votes, noise included"
    bounds = OF_VOTES
    disjoint = True

    def steps(self, values: np.ndarray) -> np.ndarray:
        """Counts of votes in steps of the grid."""
        return counts(values, self.name) << self.digits

    def release(self, values: np.ndarray, noise: Noise) -> np.ndarray:
        """The winning class of each row, ``[N]``."""
        steps = self.steps(values)
        return (steps + self.checked(noise, *steps.shape)).argmax(1)

    def private_log_q(self, values: np.ndarray) -> np.ndarray:
        """Logs of how likely noise makes another class win, at most."""
        return private_log_other(counts(values, self.name), self.sigma, 2.0**-self.digits)
