"""What is measured of an agent or a consensus on a labelled stream, and of several on any stream."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from kdmesh.agents.classes import own_classes
from kdmesh.signals.crossing import LARGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.signals.lazy import Lazy


def quality(
    scores: Tensor | Lazy,
    y: Tensor,
    *,
    probs: bool = False,
    characters: int | None = None,
    classes: Sequence[int] | None = None,
) -> dict[str, float]:
    """Accuracy, cross-entropy in nats, and expected calibration error (15 equal bins; Guo et al., 2017).

    ``scores [N, C]`` are logits, or probabilities with ``probs``; ``y [N]`` int64. With the number of ``characters``
    that the N answers are about, also ``bits_per_character``, which does not depend on how texts are cut into tokens.

    ``classes``: what the columns stand for where they are not all classes. Accuracy and calibration count every sample,
    and an answer is wrong where the true class is unknown. The loss, infinite there, is that of the other samples, and
    0 if there are none.
    """
    right, nats, gaps, known = 0.0, 0.0, torch.zeros(15, dtype=torch.float64), 0
    step = len(y) if isinstance(scores, Tensor) else max(1, LARGE // scores.shape[1])
    for start in range(0, len(y), max(step, 1)):
        part = scores if isinstance(scores, Tensor) else scores.rows(start, min(start + step, len(y)))
        sums = _sums(part, y[start : start + len(part)], probs, classes)
        right, nats, gaps, known = right + sums[0], nats + sums[1], gaps + sums[2], known + sums[3]
    found = {"accuracy": right / len(y), "loss": nats / max(known, 1), "ece": gaps.abs().sum().item() / len(y)}
    if characters:
        found["bits_per_character"] = nats / math.log(2) / characters
    return found


def _sums(scores: Tensor, y: Tensor, probs: bool, classes: Sequence[int] | None) -> tuple[float, float, Tensor, int]:
    """Right answers, nats, the calibration gap of each bin, and samples of known classes, summed over rows."""
    scores = scores.float() if scores.element_size() < 4 else scores  # of models in half precision
    p = scores if probs else scores.softmax(1)
    log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log() if probs else scores.log_softmax(1)
    confidence, guess = p.max(1)
    hit = guess == y
    if classes is not None:
        y, known = own_classes(y, classes)
        hit, log_p, y = (guess == y) & known, log_p[known], y[known]
    right = hit.to(p.dtype)
    bins = (confidence * 15).long().clamp_(0, 14)
    gaps = torch.zeros(15, dtype=p.dtype, device=p.device).index_add_(0, bins, right - confidence)
    nats = functional.nll_loss(log_p, y, reduction="sum")
    return right.sum().item(), nats.item(), gaps.double().cpu(), len(y)


def guesses(scores: Tensor | Lazy, classes: Sequence[int] | None = None) -> Tensor:
    """The likeliest class of each row, ``[N]`` int64. ``classes``: what columns stand for, if not for themselves."""
    if isinstance(scores, Tensor):
        found = scores.argmax(1)
        return found if classes is None else torch.tensor(classes, device=found.device)[found]
    step = max(1, LARGE // scores.shape[1])
    return torch.cat([scores.rows(at, min(at + step, len(scores))).argmax(1) for at in range(0, len(scores), step)])


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
