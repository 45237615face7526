"""Mean absolute error of values.

Willmott and Matsuura, "Advantages of the Mean Absolute Error (MAE) over the Root Mean Square Error (RMSE) in Assessing
Average Model Performance", 2005.
"""

from __future__ import annotations

from torch import Tensor

from kdmesh.builtin.metrics._errors import Errors


class MeanAbsoluteError(Errors):
    """``sum_it |s_it - y_it| / (N T)``, from 0 up, in units of the labels; computed in float64."""

    def error(self, difference: Tensor) -> Tensor:
        """The absolute value."""
        return difference.abs()
