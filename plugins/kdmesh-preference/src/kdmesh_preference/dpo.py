"""Direct preference optimisation: a chosen answer above a rejected one, by more than a reference has it.

Rafailov, Sharma, Mitchell, Manning, Ermon and Finn, "Direct Preference Optimization: Your Language Model is Secretly a
Reward Model", 2023. Label smoothing: Mitchell, "A note on DPO with noisy preferences & relationship to IPO", 2023.
"""

from __future__ import annotations

from kdmesh.objectives import Answers, Objective, refuse_form
from kdmesh.signals.lazy import Lazy
from torch import Tensor
from torch.nn import functional as F


class DPO(Objective):
    """``-(1 - e) log sigmoid(z) - e log sigmoid(-z)`` with ``z = beta (m - r)``, in nats, the mean over pairs.

    ``m = log p(chosen | prompt) - log p(rejected | prompt)`` of the student, ``r`` the same of the target, which is the
    reference; e is ``label_smoothing``. An answer's log-probability is the sum over its tokens, the one that ends it
    too, or with ``per_token`` their mean. A student that is still the reference has a loss of ``log 2``.
    """

    def __init__(self, beta: float = 0.1, per_token: bool = False, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.beta, self.per_token, self.label_smoothing = beta, per_token, label_smoothing

    def forward(
        self,
        student: Tensor | Lazy,
        target: Tensor | Lazy,
        *,
        form: str = "logits",
        weights: Tensor | None = None,
        pairs: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare logits ``[N, V]`` with the reference's, of tokens of which ``pairs [N, 3]`` says what they are.

        ``labels``: not read; that there are some says that the first answer is the chosen one.
        """
        refuse_form(self, form, ("logits", "probs"))
        assert pairs is not None, "answers are told apart by `pairs`"
        answers = Answers.of(pairs, weights)
        own, reference = (
            answers.log_probs(values, kind, self.per_token) for values, kind in ((student, "logits"), (target, form))
        )
        margin = (own[:, 0] - own[:, 1]) - (reference[:, 0] - reference[:, 1]).to(own.dtype)
        z = self.beta * margin
        losses = -F.logsigmoid(z)
        if self.label_smoothing:
            losses = (1 - self.label_smoothing) * losses - self.label_smoothing * F.logsigmoid(-z)
        return answers.mean(losses)
