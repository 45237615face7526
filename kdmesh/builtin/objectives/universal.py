"""Universal logit distillation: distributions over different vocabularies, compared by their shape.

Boizard, El Haddad, Hudelot and Colombo, "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss
for LLMs", 2024.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.objectives._base import refuse_form
from kdmesh.builtin.objectives._numerics import probs
from kdmesh.builtin.objectives._spans import Counted, compared, paired, picked, spans_of
from kdmesh.builtin.objectives.offers import UniversalConfig
from kdmesh.contracts.objective import Objective
from kdmesh.signals.lazy import Lazy
from kdmesh.spec.settings import checked_by


@checked_by(UniversalConfig)
class Universal(Counted, Objective):
    """``sum_pairs sum_r |q_(r) - p_(r)| / N``, both distributions sorted, the shorter one with zeros at its end.

    The i-th row of a sample is paired with the target's i-th of that sample, up to the shorter of the two; N counts all
    rows of the student, so that a batch may be split anywhere (the paper: the mean over pairs). It is the 1-Wasserstein
    distance where every change of a token costs the same. Its limits: pairs drift apart in a text that one side cuts
    finer, and which token is probable is not compared, only how much. Both sides at ``temperature``; no T².

    ``weights [M]`` are the target rows'. ``report()``: ``coverage``, the share of the student's rows that are compared.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(
        self,
        student: Tensor | Lazy,
        target: Tensor | Lazy,
        *,
        form: str = "logits",
        weights: Tensor | None = None,
        spans: Tensor | None = None,
        source_spans: Tensor | None = None,
    ) -> Tensor:
        """Compare logits ``[N, V]`` with logits or probabilities ``[M, W]``, by ``spans [N, 3]``, ``[M, 3]``."""
        refuse_form(self, form, ("logits", "probs"))
        pairs = paired(*spans_of(spans, source_spans, len(student), len(target)))
        own, other = (rows.to(student.device) for rows in pairs)
        if weights is not None:
            counted = weights[other] != 0  # to leave rows out makes a GPU wait: how many are left is their number
            own, other = own[counted], other[counted]
        self.count(len(student), len(own))

        width = max(student.shape[1], target.shape[1])

        def compare(at: Tensor) -> Tensor:
            q = probs(picked(student, own[at]), "logits", self.temperature)
            p = probs(picked(target, other[at]).to(q.dtype), form, self.temperature)
            ranked = [F.pad(side.sort(-1, descending=True).values, (0, width - side.shape[1])) for side in (q, p)]
            return (ranked[0] - ranked[1]).abs().sum(-1)

        losses = compared(compare, len(own), width, student.device)
        losses = losses if weights is None else losses * weights[other].to(losses.dtype)
        return losses.sum() / max(len(student), 1)
