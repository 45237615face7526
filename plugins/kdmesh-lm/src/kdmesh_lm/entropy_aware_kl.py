"""Entropy-aware distillation: reverse KL, and forward KL beside it at tokens of which the target is unsure.

Jin, Min, Yang, Kadhe, Zhou, Wei, Baracaldo and Lee, "Entropy-Aware On-Policy Distillation of Language Models", 2026.
"""

from __future__ import annotations

from kdmesh.objectives import Tempered, log_probs
from torch import Tensor


class EntropyAwareKL(Tempered):
    """``T² (KL(q ‖ p) + f [H(p) > threshold] KL(p ‖ q))`` with target p, student q, and f = ``forward``; batchmean.

    The entropy H is in nats, of the target at T. No gradient passes through the choice.
    """

    closed_form = False

    def __init__(self, threshold: float, forward: float = 1.0, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__(temperature, t2_scale)
        self.threshold, self.share = threshold, forward

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``(f [H > threshold] p - q) (log p - log q)``."""
        log_p = log_probs(target, form, self.temperature)
        p = log_p.exp() if form == "logits" else target
        entropy = -(p * log_p).sum(-1, keepdim=True).detach()
        factor = self.share * (entropy > self.threshold).to(p.dtype)
        return (factor * p - log_q.exp()) * (log_p - log_q)
