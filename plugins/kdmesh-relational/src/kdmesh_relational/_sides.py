"""What relational objectives share: sides of unequal width in one dtype, silent samples as zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.objectives import at_least_float32, kept

if TYPE_CHECKING:
    from torch import Tensor


def sides(student: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return both as they are but for dtype and silence; ValueError for batches of unequal size."""
    if len(student) != len(target):
        raise ValueError(f"{len(student)} samples of the student, {len(target)} of the target")
    student = at_least_float32(student)
    return kept(student, weights), kept(target.to(student.dtype), weights)
