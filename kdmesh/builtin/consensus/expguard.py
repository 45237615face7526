"""ExpGuard: who was far from the middle in earlier rounds has less say in later ones.

Roux, Zimmer and Pokutta, "On the Byzantine-Resilience of Distillation-Based Federated Learning", 2024; multiplicative
weights as by Freund and Schapire, "A Decision-Theoretic Generalization of On-Line Learning and an Application to
Boosting", 1997, and of sources that come and go as by Freund, Schapire, Singer and Warmuth, "Using and Combining
Predictors That Specialize", 1997.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.builtin.consensus._base import present_of, silenced
from kdmesh.builtin.consensus.geometric_median import GeometricMedian
from kdmesh.builtin.consensus.mean import Mean
from kdmesh.builtin.consensus.median import Median
from kdmesh.builtin.consensus.offers import ExpGuardConfig
from kdmesh.contracts.rule import Rule, weighted_sum
from kdmesh.spec.settings import checked_by

if TYPE_CHECKING:
    from torch import Tensor

CENTRES = {"mean": Mean, "median": Median, "geometric_median": GeometricMedian}


@checked_by(ExpGuardConfig)
class ExpGuard(Rule):
    """The mean of sources by ``w_m * exp(-step * d_m)`` over their sum, per sample, where ``d_m = ‖p_m - centre‖₂``.

    After each call (a round, where sources publish once a round) ``w_m`` is multiplied by ``exp(-step * mean d_m)``,
    the mean over the rows in which the source was present. The release multiplies by that before it combines, and
    weighs all rows of a round alike; here a row counts its own ``d_m`` for itself, since what is said of a row must not
    depend on the batch that it is in. Who is absent from a call keeps its share of the say, and gains none by that.

    State: the weights' logarithms, sums of outlier scores, and of how many rows. The order of sources changes rounding
    only. Gradients go through weights and values.
    """

    log_weights: Tensor
    outliers: Tensor
    rows: Tensor

    def __init__(self, step: float = 1.0, centre: str = "geometric_median") -> None:
        super().__init__()
        self.step = step
        self.centre = CENTRES[centre]()
        self.names: tuple[str, ...] = ()

    def setup(self, sources: tuple[str, ...], classes: int, inputs: tuple[torch.Size, ...]) -> None:
        """All begin with the same weight."""
        self.names = sources
        self.register_buffer("log_weights", torch.zeros(len(sources)))
        self.register_buffer("outliers", torch.zeros(len(sources)))
        self.register_buffer("rows", torch.zeros(len(sources), dtype=torch.int64))

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return distributions ``[B, C]``; the weights move for the next call."""
        scores = self.scores(values, logits, present)
        shares = self._shares(scores, present)
        self._move(scores.detach(), present_of(values, present))
        return weighted_sum(silenced(values, present), shares.to(values.dtype))

    def weights(self, logits: Tensor, *, labels: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """By which each source counts in each row ``[M, B]``, as the weights now are."""
        scores = self.scores((logits / self.temperature).softmax(-1), logits, present)
        return self._shares(scores, present).to(logits.dtype)

    def scores(self, values: Tensor, logits: Tensor, present: Tensor | None = None) -> Tensor:
        """How far each source is from the middle of those present, ``[M, B]``."""
        values = values.float() if values.element_size() < 4 else values
        centre = self.centre(values, logits=logits, present=present)
        return torch.linalg.vector_norm(silenced(values, present) - centre, dim=-1)

    def _shares(self, scores: Tensor, present: Tensor | None) -> Tensor:
        here = present_of(scores, present)
        force = self.log_weights[:, None].to(scores.dtype) - self.step * scores
        nobody = ~here.any(0)
        return force.masked_fill(~here & ~nobody, float("-inf")).softmax(0)

    def _move(self, scores: Tensor, here: Tensor) -> None:
        """Multiply the weights of who was present; together they keep the share of all that they had."""
        scores = torch.where(here, scores.to(self.outliers.dtype), 0.0)
        rows, awake = here.sum(1), here.any(1)
        before = self.log_weights.log_softmax(0)
        after = before - self.step * scores.sum(1) / rows.clamp(min=1)
        asleep = torch.full_like(before, float("-inf"))
        kept = torch.where(awake, before, asleep).logsumexp(0) - torch.where(awake, after, asleep).logsumexp(0)
        self.log_weights = torch.where(awake, after + kept, before)
        self.outliers = self.outliers + scores.sum(1)
        self.rows = self.rows + rows

    def report(self) -> dict[str, float]:
        """Each source's weight, and its mean distance from the middle so far."""
        weights = self.log_weights.softmax(0)
        found = {f"weight of {name}": float(weight) for name, weight in zip(self.names, weights, strict=True)}
        for name, total, rows in zip(self.names, self.outliers, self.rows, strict=True):
            if rows:
                found[f"outlier of {name}"] = float(total / rows)
        return found
