"""Running average: the mean of all weights that have arrived so far.

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018 (SWA), as in
``torch.optim.swa_utils.AveragedModel``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.consensus._base import uniform
from kdmesh.contracts.rule import Rule, weighted_sum


class RunningAverage(Rule):
    """``a_t = a_(t-1) + (w_t - a_(t-1)) / t``: equal shares; ``w_t``: the mean of what then arrives."""

    average: Tensor
    count: Tensor

    def setup(self, sources: tuple[str, ...], classes: int, inputs: tuple[torch.Size, ...]) -> None:
        """``classes``: how many values a source has."""
        self.register_buffer("average", torch.zeros(1, classes, dtype=torch.float64))  # holds either type exactly
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """The mean ``[1, P]`` of what has arrived, this time included."""
        now = values[0] if len(values) == 1 else weighted_sum(values, uniform(values, present))
        self.count = self.count + 1
        known = self.average.to(now.dtype)
        mean = now if self.count == 1 else known + (now - known) / self.count
        self.average = mean.detach().double()
        return mean
