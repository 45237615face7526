"""Classification: one class of each sample, numbers or texts.

No paper: the task that distillation was written for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.task import Chance, Task, most_frequent, one_for_all, refuse_weights
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.table import Table


class Classification(Task):
    """Labels ``[N]`` int64 in ``0 .. C-1``, one of C logits a class. Chance: to answer the most frequent class."""

    def __init__(self, label_smoothing: float = 0.0, class_weights: list[float] | str | None = None) -> None:
        """Both settings are those of the loss of labels, which has them from the mesh."""
        self.class_weights = class_weights

    def refuse(self, table: Table) -> None:
        """Texts must come with a column of classes; of numbers the data set's reader sees to it."""
        if table.is_text and not table.classes:
            raise MeshError(
                "these texts have no classes", where="data.dataset", instead="label: COLUMN, or another `task`"
            )
        refuse_weights(self.class_weights, table, "classification")

    def chance(self, labels: Tensor) -> Chance | None:
        """The share of the most frequent class, with class weights the balanced accuracy of one class; None where there
        is one class alone.
        """
        if self.class_weights is not None:  # learned is then not what answers most samples rightly
            return one_for_all(labels, "one class for all")
        return most_frequent(labels, "the most frequent class")
