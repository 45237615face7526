"""What a student finds hard: its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.selection.criterion import Asked, Criterion

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Criterion):
    """The student's cross-entropy in nats, of labels; without labels, of the teachers' mean probabilities."""

    needs = ("student",)

    def rows(self, asked: Asked) -> Tensor:
        """See the class."""
        assert asked.student is not None
        logs = asked.student.double().log_softmax(-1)
        if asked.labels is not None:
            return -logs.gather(-1, asked.labels[:, None])[:, 0]
        return -(asked.teachers.double().softmax(-1).mean(0) * logs).sum(-1)
