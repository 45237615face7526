"""Reverse Kullback-Leibler divergence: the student concentrates on modes of its target.

Gu, Dong, Wei and Huang, "MiniLLM: Knowledge Distillation of Large Language Models", 2023.
"""

from __future__ import annotations

from torch import Tensor

from kdmesh.builtin.objectives._base import Tempered
from kdmesh.builtin.objectives._gradients import Rows, through_softmax
from kdmesh.builtin.objectives._numerics import log_probs


class ReverseKL(Tempered):
    """``T² KL(q ‖ p)`` in nats, with student ``q = softmax(s / T)`` and target ``p = softmax(t / T)``; batchmean.

    Without weights it is ``F.kl_div(F.log_softmax(t / T, -1), F.log_softmax(s / T, -1), reduction="batchmean",
    log_target=True) * T**2``. A class that the target excludes (a probability of 0, a logit of -inf) counts as one of
    the smallest normal number, 1.2e-38 in float32, so that it costs the student much, not infinitely much: votes and
    masks exclude classes that a student's softmax gives some mass.
    """

    closed_form = True

    def elements(self, log_q: Tensor, target: Tensor, form: str) -> Tensor:
        """``q (log q - log p)``."""
        return log_q.exp() * (log_q - log_probs(target, form, self.temperature))

    def gradient(self, rows: Rows) -> Tensor:
        """``q (log q - log p - loss)``."""
        return through_softmax(rows.q, rows.log_q.sub_(rows.log_p))
