"""Adaptive KL: forward where the student misses what its target finds likely, reverse where it misses the rest.

Wu, Tao, Wang, Yang, Zhao and Wong, "Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language
Models", 2024.
"""

from __future__ import annotations

import torch
from kdmesh.objectives import Tempered, log_probs
from torch import Tensor


class AdaptiveKL(Tempered):
    """``T² (g_h KL(p ‖ q) + g_t KL(q ‖ p)) / (g_h + g_t)``, target p, student q; batchmean.

    ``g_h`` is the sum of ``|p - q|`` over the head of each row, the fewest likeliest classes of the target that have
    together at least ``mu``; ``g_t`` that over the others. No gradient passes through them. Rows in which both sides
    are equal have a loss of 0.
    """

    closed_form = False

    def __init__(self, mu: float = 0.5, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__(temperature, t2_scale)
        self.mu = mu

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``(w p - (1 - w) q) (log p - log q)`` with ``w = g_h / (g_h + g_t)``."""
        log_p = log_probs(target, form, self.temperature)
        p, q = log_p.exp() if form == "logits" else target, log_q.exp()
        share = self.head_share(p.detach(), q.detach())
        return (share * p - (1 - share) * q) * (log_p - log_q)

    def head_share(self, p: Tensor, q: Tensor) -> Tensor:
        """``g_h / (g_h + g_t)`` of each row, ``[..., 1]``; a half where both are 0."""
        ordered, places = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.double().cumsum(-1) - ordered
        gaps = (p - q).abs().gather(-1, places)
        head = torch.where(before < self.mu, gaps, 0.0).sum(-1, keepdim=True)
        whole = gaps.sum(-1, keepdim=True)
        return torch.where(whole > 0, head / whole.clamp_min(torch.finfo(whole.dtype).tiny), 0.5)
