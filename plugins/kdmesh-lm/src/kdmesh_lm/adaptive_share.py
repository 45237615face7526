"""The share of batches that a student writes grows as its loss on validation does.

Ko, Kim, Chen and Yun, "DistiLLM: Towards Streamlined Distillation for Large Language Models", 2024, as in the authors'
code (`finetune.py`). Their buffer, from which texts that were written before are drawn again, is not here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from kdmesh.gates import Gate


class AdaptiveShare(Gate):
    """Open with the probability ``phi``, drawn anew in each step: the batch is then written, and else it is given.

    Each time the agent was measured, with the loss ``L`` on validation, the first of which is kept as ``L'``:
    ``phi <- min(phi + increase, 1)`` and ``L' <- L`` where ``L >= L' + tolerance``; else both stay.
    """

    share: torch.Tensor
    last: torch.Tensor
    seen: torch.Tensor

    def __init__(self, start: float, increase: float, tolerance: float) -> None:
        super().__init__()
        self.increase, self.tolerance = increase, tolerance
        self.register_buffer("share", torch.tensor(start, dtype=torch.float64))
        self.register_buffer("last", torch.tensor(math.nan, dtype=torch.float64))  # L', NaN before the first
        self.register_buffer("seen", torch.full((2,), math.nan, dtype=torch.float64))  # the last figure: step, loss

    def forward(self, *, metrics: dict[str, float], measured_step: int | None, **facts: Any) -> bool:
        """Decide; ``metrics`` has the `loss` once there is one, measured before the step ``measured_step``."""
        if "loss" in metrics and measured_step is not None:
            figure = self.seen.new_tensor([measured_step, metrics["loss"]])
            if not torch.equal(figure, self.seen):
                self.seen.copy_(figure)
                self._measured(figure[1])
        return bool(torch.rand((), dtype=torch.float64) < float(self.share))

    def _measured(self, loss: torch.Tensor) -> None:
        if self.last.isnan():
            self.last.copy_(loss)
        elif loss >= self.last + self.tolerance:
            self.share.add_(self.increase).clamp_(max=1.0)
            self.last.copy_(loss)
