"""Learn from a teacher that is itself in training: the loss of ONE, on the student's and on the teacher's side.

Lan, Zhu and Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", 2018.
"""

from __future__ import annotations

from kdmesh.objectives import Objective, batchmean, comparable, floored, kept, possible, refuse_form
from torch import Tensor
from torch.nn import functional as F


class TaughtKL(Objective):
    """``T² KL(p ‖ q) + share * CE(t, y)`` in nats, batchmean: ``p = softmax(t / T)``, ``q = softmax(s / T)``.

    The second term trains the *target* t on the labels, at T = 1. With K readers of one consensus, each of share 1 / K,
    the consensus gets one cross-entropy. It has a gradient only where the target does: the flow says `detach: false`.

    Infinite where the target gives mass, or a label asks for, what a logit of -inf rules out: on the student's side in
    the first term, on the target's in the second.

    ``through``: whether the KL's gradient reaches the target too. ONE's published code stops it.
    """

    def __init__(
        self, temperature: float = 3.0, share: float = 1.0, through: bool = False, t2_scale: bool = True
    ) -> None:
        super().__init__()
        self.temperature, self.share, self.through = temperature, share, through
        self.scale = temperature**2 if t2_scale else 1.0

    def forward(
        self,
        student: Tensor,
        target: Tensor,
        *,
        form: str = "logits",
        weights: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare logits ``[B, C]`` with logits; ``labels [B]`` int64. Raises ValueError without labels."""
        refuse_form(self, form, ("logits",))
        if labels is None:
            raise ValueError("TaughtKL teaches its target the true classes: labels=")
        student, target = comparable(student, target, weights)
        raw = F.log_softmax((target if self.through else target.detach()) / self.temperature, dim=-1)
        log_q = possible(F.log_softmax(student / self.temperature, dim=-1), raw.exp() == 0)
        log_p = floored(raw)
        loss = self.scale * batchmean(F.kl_div(log_q, log_p, reduction="none", log_target=True), weights)
        truth = F.cross_entropy(target, kept(labels, weights), reduction="none")
        return loss + self.share * batchmean(truth, weights)
