"""Squared error between margins: by how much a relevant candidate is scored above another.

Hofstätter, Althammer, Schröder, Sertkan and Hanbury, "Improving Efficient Neural Ranking Models with Cross-Architecture
Knowledge Distillation", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import batchmean, refuse_form
from kdmesh.builtin.objectives._numerics import comparable, kept
from kdmesh.contracts.objective import Objective


class MarginMSE(Objective):
    """``mean_{(i, j): g_i > g_j} ((s_i - s_j) - (t_i - t_j))²``, over the pairs of a list; then the mean over lists.

    ``g``: labels, so that of one relevant candidate and one other it is the paper's loss. What is added to all scores
    of a list does not matter, by how much they are scaled does. Pairs in which a side rules a candidate out (``-inf``)
    do not count, and a list without a pair costs nothing.
    """

    def forward(
        self,
        student: Tensor,
        target: Tensor,
        *,
        form: str = "logits",
        weights: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare scores ``[B, L]`` with scores ``[B, L]``; ``labels [B, L]``: how relevant, below 0: no candidate."""
        refuse_form(self, form, ("logits",))
        if labels is None or labels.shape != student.shape:
            found = "none" if labels is None else list(labels.shape)
            raise ValueError(f"labels {found} for scores {list(student.shape)}: it compares pairs, by their labels")
        student, target = comparable(student, target, weights)
        labels = kept(labels, weights)
        there = (labels >= 0) & student.isfinite() & target.isfinite()
        error = torch.where(there, student - target, 0)
        pairs = (labels[:, :, None] > labels[:, None, :]) & there[:, :, None] & there[:, None, :]
        squares = torch.where(pairs, (error[:, :, None] - error[:, None, :]).square(), 0)
        return batchmean(squares.sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1), weights)
