"""DPO's distilled form: a teacher's margin between two answers is the target, in place of "the first is better".

After Fisch, Eisenstein, Zayats, Agarwal, Beirami, Nagpal, Shaw and Berant, "Robust Preference Optimization through
Reward Model Distillation", 2025, who distil the rewards of a reward model into a language model; here the teacher is a
language model, whose log-probabilities are its rewards.
"""

from __future__ import annotations

from kdmesh.objectives import Answers, Objective, refuse_form
from kdmesh.signals.lazy import Lazy
from torch import Tensor
from torch.nn import functional as F


class Distilled(Objective):
    """The student's margin m between two answers to a prompt against the teacher's, t; in nats, the mean over pairs.

    A margin is ``log p(one | prompt) - log p(other | prompt)``, of sums over tokens or, with ``per_token``, of means.

    - `kl`: ``KL(Bernoulli(sigmoid(beta t)) ‖ Bernoulli(sigmoid(beta m)))``. Its gradient is ``beta (sigmoid(beta m) -
      sigmoid(beta t))``: that of DPO with the teacher's preference in place of 1.
    - `squared`: ``beta² (m - t)²``.

    No reference stands in it. In `squared` it makes no difference: a teacher whose reward is ``beta (log p_t - log
    p_ref)``, as one trained by DPO has, and a student whose reward is measured from the same reference, ask for the
    same margins, since that of the reference is taken off both. In `kl` it would be added to both.

    The answers may be given in either order, which is all that labels of pairs say: there need be none.
    """

    def __init__(self, beta: float = 0.1, per_token: bool = False, distance: str = "kl") -> None:
        super().__init__()
        self.beta, self.per_token, self.distance = beta, per_token, distance

    def forward(
        self,
        student: Tensor | Lazy,
        target: Tensor | Lazy,
        *,
        form: str = "logits",
        weights: Tensor | None = None,
        pairs: Tensor | None = None,
    ) -> Tensor:
        """Compare logits ``[N, V]`` with the teacher's, of tokens of which ``pairs [N, 3]`` says what they are."""
        refuse_form(self, form, ("logits", "probs"))
        assert pairs is not None, "answers are told apart by `pairs`"
        answers = Answers.of(pairs, weights)
        own, theirs = (
            answers.log_probs(values, kind, self.per_token) for values, kind in ((student, "logits"), (target, form))
        )
        margin, wanted = (self.beta * (side[:, 0] - side[:, 1]) for side in (own, theirs.to(own.dtype)))
        if self.distance == "squared":
            return answers.mean((margin - wanted).square())
        p = wanted.sigmoid()
        gaps = [F.logsigmoid(sign * wanted) - F.logsigmoid(sign * margin) for sign in (1, -1)]
        return answers.mean(p * gaps[0] + (1 - p) * gaps[1])
