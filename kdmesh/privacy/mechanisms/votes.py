"""Votes of teachers as counts, which the mechanisms of PATE take. No paper: it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.privacy.mechanisms._base import refuse_shape

if TYPE_CHECKING:
    import numpy as np

NO_VOTE = -1
MOST = 2**20  # teachers: their counts in steps of the finest grid still fit


def histogram(labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts ``[N, classes]`` of labels ``[teachers, N]``, of which each teacher has one, or -1 for no vote.

    One vote a teacher is what the sensitivity of counts rests on, beside disjoint data; here it cannot be otherwise.
    """
    import numpy as np

    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        found = f"labels of shape {labels.shape} and type {labels.dtype}"
        raise MeshError(found, where="votes", instead="a class for each teacher and sample, as whole numbers")
    if labels.size and not (labels.min() >= NO_VOTE and labels.max() < classes):
        found = f"labels from {labels.min()} to {labels.max()}"
        raise MeshError(found, where="votes", instead=f"classes from 0 to {classes - 1}, or {NO_VOTE} for no vote")
    return (labels[:, :, None] == np.arange(classes)).sum(0)


def counts(values: np.ndarray, name: str) -> np.ndarray:
    """Votes as whole numbers. MeshError for what is no histogram of votes: shares, weights, or fewer than none."""
    import numpy as np

    refuse_shape(values, name)
    if values.size and not (np.isfinite(values).all() and values.min() >= 0 and values.sum(1).max() <= MOST):
        raise MeshError("a count that is negative, too large, or not finite", where=name, instead="counts of votes")
    whole: np.ndarray = values.astype(np.int64)
    if (whole != values).any():
        found = "a count that is no whole number"
        raise MeshError(found, where=name, instead="one vote a teacher: shares and weights have another sensitivity")
    return whole
