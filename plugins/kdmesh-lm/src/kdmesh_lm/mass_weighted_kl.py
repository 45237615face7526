"""Tokens weighed by what can be learned at them: the target's mass on what the student finds likely.

Wang, Lu, Gu, Wang, Yang, Yan, Xie, Wu and Yang, "Not All Disagreement Is Learnable: Token Teachability in On-Policy
Distillation", 2026, measure by this mass whether a disagreement is within the student's reach, and select tokens by it;
here it is a weight.
"""

from __future__ import annotations

from kdmesh.objectives import Tempered, log_probs
from torch import Tensor


class MassWeightedKL(Tempered):
    """``T² m KL(q ‖ p)``, target p, student q; ``m = sum of p over the k likeliest classes of q``; batchmean.

    No gradient passes through m, which is 1 where k is not below the number of classes.
    """

    closed_form = False

    def __init__(self, k: int = 16, temperature: float = 1.0, t2_scale: bool = True) -> None:
        super().__init__(temperature, t2_scale)
        self.k = k

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``m q (log q - log p)``."""
        log_p = log_probs(target, form, self.temperature)
        p = log_p.exp() if form == "logits" else target
        likely = log_q.detach().topk(min(self.k, log_q.shape[-1]), -1).indices
        mass = p.detach().gather(-1, likely).sum(-1, keepdim=True)
        return mass * (log_q.exp() * (log_q - log_p))
