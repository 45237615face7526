"""Mean squared error of values.

No paper: Legendre and Gauss, least squares, 1805 to 1809.
"""

from __future__ import annotations

from torch import Tensor

from kdmesh.builtin.metrics._errors import Errors


class MeanSquaredError(Errors):
    """``sum_it (s_it - y_it)² / (N T)``, from 0 up, in squared units of the labels; computed in float64."""

    def error(self, difference: Tensor) -> Tensor:
        """The square."""
        return difference.square()
