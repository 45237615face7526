"""Whether votes agree enough, the first half of Confident-GNMax.

Papernot et al., "Scalable Private Learning with PATE", 2018, Section 4.2. Released is whether the largest count, noise
included, reaches a threshold. One vote moves the largest count by 1 at most, so an answer costs a / (2 sigma^2) at
order a, whichever way it goes.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.privacy.mechanisms._base import Mechanism
from kdmesh.privacy.mechanisms.votes import counts
from kdmesh.privacy.pate import private_log_side
from kdmesh.privacy.sensitivity import OF_LARGEST_COUNT

if TYPE_CHECKING:
    import numpy as np

    from kdmesh.privacy.gaussian import Noise


class Agreement(Mechanism):
    """Whether the largest count, noise included, reaches ``threshold``."""

    name = "agreement"
    released = "whether the most votes for one class, noise included, reach a threshold"
    bounds = OF_LARGEST_COUNT
    disjoint = True

    def __init__(self, threshold: float, sigma: float, unit: str, adjacency: str) -> None:
        super().__init__(sigma, unit, adjacency)
        if not (isinstance(threshold, int | float) and math.isfinite(threshold)):
            raise MeshError(f"is {threshold!r}", where="threshold", instead="a number of votes")
        self.threshold = float(threshold)

    @property
    def settings(self) -> dict[str, float]:
        """The threshold."""
        return {"threshold": self.threshold}

    def steps(self, values: np.ndarray) -> np.ndarray:
        """The largest count of each row in steps of the grid, ``[N, 1]``."""
        return counts(values, self.name).max(1, keepdims=True) << self.digits

    def size(self, values: np.ndarray) -> int:
        """One number: it is one count."""
        return 1

    def release(self, values: np.ndarray, noise: Noise) -> np.ndarray:
        """Whether each row reaches it, ``[N]``."""
        steps = self.steps(values)
        least = math.ceil(Fraction(self.threshold) * 2**self.digits)
        return (steps + self.checked(noise, *steps.shape))[:, 0] >= least

    def private_log_q(self, values: np.ndarray) -> np.ndarray:
        """Logs of how likely the less likely of the two answers is."""
        return private_log_side(counts(values, self.name), self.threshold, self.sigma, 2.0**-self.digits)
