"""What a student can take up: how much of the teachers' mass is on what it finds likely itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.selection.criterion import Asked, Criterion

if TYPE_CHECKING:
    from torch import Tensor


class Teachability(Criterion):
    """The mean over teachers of the probability that they give to the student's ``k`` likeliest columns."""

    needs = ("teachers", "student")

    def __init__(self, k: int = 3) -> None:
        self.k = k

    def rows(self, asked: Asked) -> Tensor:
        """See the class. MeshError for a ``k`` that leaves no column out."""
        assert asked.student is not None
        columns = asked.student.shape[-1]
        if self.k >= columns:
            what = f"k: {self.k} of {columns} columns have all of the mass"
            raise MeshError(what, where="--by teachability", instead=f"k from 1 to {columns - 1}")
        likely = asked.student.topk(self.k).indices
        probs = asked.teachers.double().softmax(-1)
        return probs.gather(-1, likely.expand(len(probs), -1, -1)).sum(-1).mean(0)
