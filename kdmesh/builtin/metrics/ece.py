"""Expected calibration error, in 15 bins of equal width.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017.
"""

from __future__ import annotations

import torch

from kdmesh.contracts.metric import Answers, Metric

BINS = 15


class ECE(Metric):
    """``sum_b |sum_{i in b} (right_i - confidence_i)| / N`` over bins b of the confidence, from 0 to 1."""

    def __init__(self) -> None:
        self.gaps, self.rows = torch.zeros(BINS, dtype=torch.float64), 0

    def update(self, answers: Answers) -> None:
        """Sum the gap between right answers and confidence in each bin."""
        p, confidence = answers.p, answers.confidence
        bins = (confidence * BINS).long().clamp_(0, BINS - 1)
        gaps = torch.zeros(BINS, dtype=p.dtype, device=p.device)
        self.gaps = self.gaps + gaps.index_add_(0, bins, answers.hit.to(p.dtype) - confidence).cpu().double()
        self.rows += len(answers)

    def compute(self) -> float | None:
        """The mean gap."""
        return self.gaps.abs().sum().item() / self.rows if self.rows else None
