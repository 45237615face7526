"""Softmax cross-entropy over the candidates of a list: which of them are relevant.

Van den Oord, Li and Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018 (InfoNCE, of one
relevant candidate); of several by their labels: Cao et al., "Learning to Rank: From Pairwise Approach to Listwise
Approach", 2007, with the labels themselves as shares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import batchmean, refuse_form
from kdmesh.builtin.objectives._numerics import comparable
from kdmesh.builtin.objectives.offers import ListConfig
from kdmesh.contracts.objective import Objective
from kdmesh.spec.settings import checked_by


@checked_by(ListConfig)
class InfoNCE(Objective):
    """``-sum_j g_j / (sum_k g_k) log softmax(s / T)_j`` over the candidates j of a list, in nats; batchmean.

    ``g``: labels, of which those above 0 are relevant; the softmax is over all candidates of the list (labels of 0 and
    above). With one relevant candidate p it is ``-log softmax(s / T)_p``. A list without one costs nothing.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self._temperature = temperature

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "labels", weights: Tensor | None = None
    ) -> Tensor:
        """Compare scores ``[B, L]`` with labels ``[B, L]``, how relevant; below 0: no candidate."""
        refuse_form(self, form, ("labels",))
        student, target = comparable(student, target, weights)
        return batchmean(relevance(student / self._temperature, target, target >= 0), weights)


def relevance(scores: Tensor, gains: Tensor, there: Tensor) -> Tensor:
    """Summands ``[B, L]`` of the cross-entropy of scores with gains (0 and less: none), over the candidates there."""
    there = there | ~there.any(1, keepdim=True)  # a list of none: any softmax, which nothing asks for
    log_q = scores.masked_fill(~there, -torch.inf).log_softmax(1)
    gains = gains.clamp_min(0)
    shares = gains / gains.sum(1, keepdim=True).clamp_min(torch.finfo(gains.dtype).tiny)
    return -shares * torch.where(gains > 0, log_q, 0)
