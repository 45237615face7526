"""What is measured of an agent or a consensus on a labelled stream, and of several on any stream."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def quality(scores: Tensor, y: Tensor, *, probs: bool = False) -> dict[str, float]:
    """Accuracy, cross-entropy in nats, and expected calibration error (15 equal bins; Guo et al., 2017).

    ``scores [N, C]`` are logits, or probabilities with ``probs``; ``y [N]`` int64.
    """
    p = scores if probs else scores.softmax(1)
    log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log() if probs else scores.log_softmax(1)
    confidence, guess = p.max(1)
    right = (guess == y).to(p.dtype)
    bins = (confidence * 15).long().clamp_(0, 14)
    gaps = torch.zeros(15, dtype=p.dtype, device=p.device).index_add_(0, bins, right - confidence)
    return {
        "accuracy": right.mean().item(),
        "loss": functional.nll_loss(log_p, y).item(),
        "ece": (gaps.abs().sum() / len(y)).item(),
    }


def agreement(guesses: Tensor) -> float:
    """Mean share of samples on which two sources agree, over all pairs. ``guesses [M, N]`` int64; 1 for one source."""
    count = len(guesses)
    if count < 2:
        return 1.0
    total = 0.0
    for i in range(count):
        for j in range(i + 1, count):
            total += (guesses[i] == guesses[j]).double().mean().item()
    return total / (count * (count - 1) / 2)


def churn(guesses: Tensor, before: Tensor | None) -> float | None:
    """Mean share of samples whose answer changed since the last round. ``[M, N]`` each; None in the first round."""
    return None if before is None else (guesses != before).double().mean().item()
