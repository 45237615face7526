"""The consensus rule `template`: write its formula and its paper here."""

from __future__ import annotations

from kdmesh.consensus import Rule
from torch import Tensor


class Template(Rule):
    """``w_m`` is the softmax over the sources of sharpness times their largest log-probability, per sample."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Weights ``[M, B]`` from raw logits ``[M, B, C]``; they sum to 1 over the sources that are present."""
        if present is not None:
            logits = logits.where(present[..., None], 0.0)
        score = self.sharpness * logits.log_softmax(-1).amax(-1)
        if present is None:
            return score.softmax(0)
        # a sample without any source: anything finite will do, its row is not used
        weights = score.masked_fill(~present, float("-inf")).where(present.any(0), 0.0).softmax(0)
        return weights * present
