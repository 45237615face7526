"""Probabilities with Gaussian noise: Dwork and Roth, "The Algorithmic Foundations of Differential Privacy", 2014,
Appendix A (the mechanism); the bound on rows is ours.

Released is a row of probabilities of one model, with noise on each. A row must lie in the simplex; what it is rounded
to has no negative number, and a sum of at most 1. Two such rows a and b have |a - b|^2 = |a|^2 + |b|^2 - 2 a.b <= 1 +
1, so one sample, which may change a row arbitrarily, moves it by sqrt 2 at most. At order a an answer costs a /
sigma^2. What is released is no distribution any more; to make one of it (by projection, say) costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.privacy.mechanisms._base import Mechanism, refuse_shape
from kdmesh.privacy.sensitivity import OF_ROW

if TYPE_CHECKING:
    import numpy as np

    from kdmesh.privacy.gaussian import Noise

CLOSE = 1e-3  # to 1, of a row's sum: numbers of 16 bits are as far off


class GaussianProbabilities(Mechanism):
    """Rows of probabilities, with noise on each number."""

    name = "gaussian_probabilities"
    released = "each class's probability, with noise on it"
    bounds = OF_ROW

    def steps(self, values: np.ndarray) -> np.ndarray:
        """Rows in steps of the grid, rounded down. MeshError for what is no distribution, as logits."""
        import numpy as np

        refuse_shape(values, self.name)
        rows = values.astype(np.float64)
        total = rows.sum(1, keepdims=True)
        if rows.size and not (np.isfinite(rows).all() and rows.min() >= 0 and np.abs(total - 1).max() <= CLOSE):
            found = "a row that is no distribution"
            raise MeshError(
                found, where=self.name, instead="probabilities, from 0, that add up to 1; logits are not bounded"
            )
        one = 1 << self.digits
        steps: np.ndarray = np.floor(rows / np.maximum(total, 1.0) * one).astype(np.int64)
        steps[np.arange(len(steps)), steps.argmax(1)] -= np.maximum(steps.sum(1) - one, 0)  # of very many classes
        return steps

    def release(self, values: np.ndarray, noise: Noise) -> np.ndarray:
        """The rows with noise, ``[N, K]``, as whole multiples of the grid."""
        steps = self.steps(values)
        return (steps + self.checked(noise, *steps.shape)) / float(1 << self.digits)
