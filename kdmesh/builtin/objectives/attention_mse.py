"""Attention between transformers: the student attends to the same tokens, by squared distance.

Jiao, Yin, Shang, Jiang, Chen, Li, Wang and Liu, "TinyBERT: Distilling BERT for Natural Language Understanding", 2020.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives._base import batchmean, refuse_form
from kdmesh.builtin.objectives._rows import comparable_rows
from kdmesh.contracts.objective import Objective


class AttentionMSE(Objective):
    """``sum_k (s_k - t_k)²`` of attention rows, the mean over tokens.

    A row is how one token attends to the tokens of its text, with zeros after them; student and target read the same
    tokens. Heads are averaged before, and attention is compared after its softmax (the paper: each head, before it).
    The sum over keys does not depend on how many zeros follow, as the paper's mean over them would.
    """

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
    ) -> Tensor:
        """Compare attention rows ``[T, width]``; the widths may differ."""
        refuse_form(self, form, ("hidden",))
        student, target = comparable_rows(student, target, weights)
        return batchmean(F.mse_loss(student, target, reduction="none"), weights)
