"""Self-attention relations: tokens attend to each other, within one kind of vectors, as the target's do.

Wang, Bao, Huang, Dong and Wei, "MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained
Transformers", 2021; for values, Wang, Wei, Dong, Bao, Yang and Zhou, "MiniLM", 2020.
"""

from __future__ import annotations

from math import sqrt

import torch
from kdmesh.objectives import Objective, batchmean, refuse_form
from torch import Tensor
from torch.nn import functional as F

from kdmesh_relational._sides import sides


class MiniLM(Objective):
    """``1 / (A N) sum_a sum_n KL(R_t[a, n] ‖ R_s[a, n])``, batchmean, with ``R = softmax(x xᵀ / sqrt(d))``.

    ``x [B, N, D]`` are the queries, the keys or the values of one layer, split on the last axis into A = ``heads``
    parts of width d; D may differ between the sides. The paper adds the three kinds: three flows, each with its tap.
    All N tokens count, padding too.
    """

    def __init__(self, heads: int = 12) -> None:
        super().__init__()
        self.heads = heads

    def setup(self, student: torch.Size, target: torch.Size) -> None:
        """Refuse what are no tokens ``[N, D]`` of one length, or cannot be split into heads, with ValueError."""
        if len(student) != 2 or len(target) != 2 or student[0] != target[0]:
            raise ValueError(f"relations need tokens [N, D] of one length, not {list(student)} and {list(target)}")
        for side, shape in (("student", student), ("target", target)):
            if shape[1] % self.heads:
                raise ValueError(f"the {side}'s width {shape[1]} does not split into {self.heads} heads")

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "hidden", weights: Tensor | None = None
    ) -> Tensor:
        """Compare tokens ``[B, N, D]``."""
        refuse_form(self, form, ("hidden",))
        related, wanted = (self._relation(side) for side in sides(student, target, weights))
        elements = F.kl_div(related, wanted, reduction="none", log_target=True)
        return batchmean(elements, weights) / (self.heads * student.shape[1])

    def _relation(self, tokens: Tensor) -> Tensor:
        """Log-relations ``[B, A, N, N]``."""
        split = tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return F.log_softmax(split @ split.transpose(-1, -2) / sqrt(split.shape[-1]), dim=-1)
