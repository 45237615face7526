"""DIST: match correlations instead of values, within each sample and within each class.

Huang, You, Wang, Qian and Xu, "Knowledge Distillation from A Stronger Teacher", 2022.
"""

from __future__ import annotations

import torch
from kdmesh.objectives import Objective, batchmean, comparable, probs, refuse_form
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-8  # the published code's; a class that nobody gives mass to counts as uncorrelated


class DIST(Objective):
    """``inter * mean_i (1 - r(q_i, p_i)) + intra * mean_c (1 - r(q_c, p_c))``, times T² with ``t2_scale``.

    ``q = softmax(s / T)``, ``p = softmax(t / T)``; ``r`` is Pearson's correlation: of a sample's row over classes
    (inter), of a class' column over the batch (intra). The published code multiplies by T², the default here. With
    per-sample weights rows are weighed as usual, columns by the weighted correlation times the mean weight.
    """

    def __init__(self, inter: float = 2.0, intra: float = 2.0, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__()
        self.inter, self.intra, self.temperature = inter, intra, temperature
        self.scale = temperature**2 if t2_scale else 1.0

    def forward(
        self, student: Tensor, target: Tensor, *, form: str = "logits", weights: Tensor | None = None
    ) -> Tensor:
        """Compare logits ``[B, C]`` with logits, or with probabilities at this temperature."""
        refuse_form(self, form, ("logits", "probs"))
        student, target = comparable(student, target, weights)
        q = F.softmax(student / self.temperature, dim=-1)
        p = probs(target, form, self.temperature)
        rows = batchmean(1.0 - _cosine(_centred(q, -1), _centred(p, -1), -1), weights)
        return self.scale * (self.inter * rows + self.intra * _columns(q, p, weights))


def _columns(q: Tensor, p: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over classes of ``1 - r`` over the batch."""
    if weights is None:
        return (1.0 - _cosine(_centred(q, 0), _centred(p, 0), 0)).mean()
    level = weights.to(q.dtype).mean()
    factors = (weights.to(q.dtype) / level.clamp_min(torch.finfo(q.dtype).tiny))[:, None]  # of mean 1
    q, p = ((x - (factors * x).mean(0)) * factors.sqrt() for x in (q, p))
    return level * (1.0 - _cosine(q, p, 0)).mean()


def _centred(values: Tensor, dim: int) -> Tensor:
    return values - values.mean(dim, keepdim=True)


def _cosine(a: Tensor, b: Tensor, dim: int) -> Tensor:
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim) / (norms + EPS)
