"""What objectives between attention rows share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives._numerics import comparable


def comparable_rows(student: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both sides ``[T, width]`` in one dtype and width, with zeros at the end of the shorter and in silent rows."""
    width = max(student.shape[-1], target.shape[-1])
    student, target = (F.pad(side, (0, width - side.shape[-1])) for side in (student, target))
    return comparable(student, target, weights)
