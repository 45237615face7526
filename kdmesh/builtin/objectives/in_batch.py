"""A query against the candidates of every query in the batch: negatives that cost no further forward.

Labels: Karpukhin et al., "Dense Passage Retrieval for Open-Domain Question Answering", 2020. A teacher: Lin, Yang and
Lin, "In-Batch Negatives for Knowledge Distillation with Tightly-Coupled Teachers for Dense Retrieval", 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.objectives._base import batchmean, refuse_form
from kdmesh.builtin.objectives._numerics import at_least_float32, kept
from kdmesh.builtin.objectives.info_nce import relevance
from kdmesh.builtin.objectives.offers import ListConfig
from kdmesh.contracts.objective import Objective
from kdmesh.spec.settings import checked_by


@checked_by(ListConfig)
class InBatch(Objective):
    """Scores of B queries and the ``B * L`` candidates of the batch, ``s_ij = <q_i, d_j> / T``, from embeddings.

    - `labels`: ``-sum_j g_ij / (sum_k g_ik) log softmax(s_i)_j``, where candidates of other queries have ``g_ij = 0``,
      also where they would be relevant.
    - `hidden`: ``T² KL(softmax(t_i) ‖ softmax(s_i))``, where t are a teacher's scores, of embeddings of any size.

    In nats, mean over queries. Embeddings of zeros are no candidates. A sample of weight 0 is neither asked nor a
    negative of others.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self._temperature = temperature

    def setup(self, student: torch.Size, target: torch.Size, **facts: Tensor | None) -> None:
        """Embeddings of a query and its candidates, as many on both sides."""
        for shape in (student, target):
            if len(shape) and (len(shape) < 2 or shape[0] != student[0] or shape[0] < 2):
                raise ValueError(f"{list(shape)} are no embeddings [1 + L, E] of a query and its candidates")

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
    ) -> Tensor:
        """Compare embeddings ``[B, 1 + L, ...]``, the query first, with such, or with labels ``[B, L]``."""
        refuse_form(self, form, ("hidden", "labels"))
        if not len(student):
            return at_least_float32(student).sum()
        own, there = self._scores(kept(at_least_float32(student), weights))
        if form == "labels":
            return batchmean(relevance(own, _apart(kept(target, weights).to(own.dtype)), there), weights)
        theirs, also = self._scores(kept(at_least_float32(target), weights).to(own.dtype))
        there = there & also
        there = there | ~there.any(1, keepdim=True)
        log_p, log_q = (
            torch.where(there, scores.masked_fill(~there, -torch.inf).log_softmax(1), 0) for scores in (theirs, own)
        )
        return batchmean(log_p.exp() * (log_p - log_q), weights) * self._temperature**2

    def _scores(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``[B, B * L]``, and which candidates there are, of the same shape."""
        embedded = embedded.flatten(2)
        candidates = embedded[:, 1:].flatten(0, 1)
        scores = embedded[:, 0] @ candidates.T / self._temperature
        return scores, (candidates != 0).any(1).expand_as(scores)


def _apart(labels: Tensor) -> Tensor:
    """Labels ``[B, L]`` in the columns of their own candidates among all ``[B, B * L]``, 0 elsewhere."""
    rows = torch.eye(len(labels), dtype=labels.dtype, device=labels.device)
    return (rows[:, :, None] * labels[:, None, :]).flatten(1)
