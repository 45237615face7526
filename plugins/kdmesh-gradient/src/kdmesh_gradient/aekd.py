"""AEKD: weigh teachers by their gradients, as multi-objective optimisation does.

Du, You, Li, Wu, Wang, Qian and Zhang, "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space",
2020. The published code solves the same problem as the dual of a one-class SVM.
"""

from __future__ import annotations

from typing import Any

import torch
from kdmesh.consensus import Rule, present_of
from torch import Tensor


class AEKD(Rule):
    """``min over a of ½ ‖Σ_m a_m g_m‖²`` with ``a ≥ 0``, ``Σ a = 1``, ``a ≤ C``; one coefficient per teacher.

    ``g_m [classes]`` is the gradient of teacher m's loss at the student's logits, summed over the batch: the losses are
    means over the batch already. ``C`` below ``1 / M`` could not sum to 1 and is raised to it. Solved in float64 by
    projected gradient descent from equal coefficients, with step ``1 / λ`` of the Gram matrix; the same input gives the
    same bits. An absent teacher has coefficient 0 in its absence, the others are renormalised.
    """

    def __init__(self, cap: float = 0.6, iterations: int = 200) -> None:
        super().__init__()
        self.cap, self.iterations = cap, iterations

    def weights(
        self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None, **given: Any
    ) -> Tensor:
        """Return ``[M, B]``, the same for every sample; needs ``gradients [M, B, C]`` (space `gradient`)."""
        here = present_of(logits, present)
        gradients = torch.where(here[..., None], given["gradients"], 0.0).double().sum(1)
        shares = self._shares(gradients.cpu(), here.any(1).cpu()).to(logits.device)
        weights = shares.to(logits.dtype)[:, None] * here
        return weights / weights.sum(0).clamp_min(torch.finfo(weights.dtype).tiny)

    def _shares(self, gradients: Tensor, known: Tensor) -> Tensor:
        """The coefficients ``[M]`` of teachers, of which those that are not ``known`` have 0.

        On a CPU, wherever the logits are: a GPU waits once for the copy, and not at every step of the descent.
        """
        shares = torch.zeros(len(known), dtype=gradients.dtype)
        if known.any():
            shares[known] = self._solve(gradients[known] @ gradients[known].T)
        return shares

    def _solve(self, gram: Tensor) -> Tensor:
        """The coefficients ``[M]`` of a Gram matrix ``[M, M]``."""
        count = len(gram)
        cap = max(self.cap, 1.0 / count)
        shares = torch.full((count,), 1.0 / count, dtype=gram.dtype, device=gram.device)
        largest = torch.linalg.eigvalsh(gram)[-1]
        if largest <= 0:
            return shares  # every gradient is zero: nobody disagrees
        for _ in range(self.iterations):
            before, shares = shares, onto_capped_simplex(shares - (gram @ shares) / largest, cap)
            if torch.equal(before, shares):
                break
        return shares


def onto_capped_simplex(point: Tensor, cap: float) -> Tensor:
    """The nearest point to ``point [M]`` with entries in ``[0, cap]`` that sum to 1; ``cap * M`` must be at least 1.

    It is ``clamp(point - shift, 0, cap)``; its sum is piecewise linear in the shift, which is therefore found exactly.
    """
    shifts = torch.cat([point - cap, point]).sort().values
    sums = (point - shifts[:, None]).clamp(0.0, cap).sum(1)
    last = (sums >= 1.0).sum().clamp(1, len(shifts) - 1) - 1  # the last breakpoint before the sum falls under 1
    share = (sums[last] - 1.0) / (sums[last] - sums[last + 1])
    return (point - torch.lerp(shifts[last], shifts[last + 1], share)).clamp(0.0, cap)
