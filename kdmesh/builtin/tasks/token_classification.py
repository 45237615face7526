"""Token classification: a tag of each word of a text, read from the spans of the samples.

Named entities as a shared task: Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.task import Chance, Task, most_frequent, one_for_all
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.table import Table


class TokenClassification(Task):
    """A unit is a word: labels ``[units]`` int64, one of the data set's tags, `O` (no tag) first."""

    def __init__(self, label_smoothing: float = 0.0, class_weights: list[float] | str | None = None) -> None:
        """Both settings are those of the loss of labels, which has them from the mesh."""
        self.class_weights = class_weights

    def refuse(self, table: Table) -> None:
        """Tags are parts of the samples: a column of classes is another task."""
        if table.y is not None:
            raise MeshError("these texts have a class each, and no tags", where="task", instead="task: classification")

    def chance(self, labels: Tensor) -> Chance | None:
        """The share of the most frequent tag, with class weights the balanced accuracy of one tag; None where there is
        one tag alone.
        """
        if self.class_weights is not None:  # learned is then not what answers most samples rightly
            return one_for_all(labels, "one tag for all")
        return most_frequent(labels, "the most frequent tag")
