"""Regression: one value of each sample, or several, numbers or texts.

No paper: least squares is older than learning machines. Distilled by the values themselves, as in Chen, Choi, Yu, Han
and Chandraker, "Learning Efficient Object Detection Models with Knowledge Distillation", 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.task import Chance, Task
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.table import Table


class Regression(Task):
    """Labels ``[N, T]`` float32, one of T outputs a value, in the units of the labels.

    Chance: to answer the mean of the labels always, whose R2 is 0.
    """

    def refuse(self, table: Table) -> None:
        """There must be values to learn."""
        if table.y is None:
            instead = "values: [COLUMN, ...], or another data set with values"
            raise MeshError("these data have no values to learn", where="data.dataset", instead=instead)

    def outputs(self, table: Table) -> int:
        """An output per value."""
        return 0 if table.y is None else table.y.shape[1]

    def decide(self, scores: Tensor) -> None:
        """Values are not discrete: agreement is not defined."""

    def chance(self, labels: Tensor) -> Chance | None:
        """R2 of the labels' own mean; None of labels that are all the same."""
        return Chance("r2", 0.0, "the mean value") if bool((labels != labels[:1]).any()) else None
