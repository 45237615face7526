"""Plain loops over mixed batches, with a teacher: torch, SciPy's quantiles of Beta, and nothing of kdmesh."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from plain import Data, MakeOptimizer, answer, descend, kl
from scipy.special import betaincinv
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
Mix = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor, "float | Tensor"]]
"""Of a batch: it mixed, the partner of each sample, and the share of the own one."""


def _shares(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    torch.rand(count, dtype=torch.float64, generator=generator)  # whether it is mixed at all, which it is
    quantiles = torch.rand(count, dtype=torch.float64, generator=generator)
    return torch.from_numpy(betaincinv(alpha, alpha, quantiles.numpy()))


def mixup(alpha: float) -> Mix:
    """One share for a batch."""

    def mix(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        share = _shares(1, alpha, generator).item()
        partner = torch.randperm(len(x), generator=generator)
        return share * x + (1 - share) * x[partner], partner, share

    return mix


def mixup_each(alpha: float) -> Mix:
    """One share for each sample."""

    def mix(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        share = _shares(len(x), alpha, generator).float()
        partner = torch.randperm(len(x), generator=generator)
        own = share[:, None, None, None]
        return own * x + (1 - own) * x[partner], partner, share

    return mix


def cutmix(alpha: float) -> Mix:
    """The code of the paper, with its box cut at the borders and the share of the area that stays."""

    def mix(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        height, width = x.shape[2:]
        side = math.sqrt(1 - _shares(1, alpha, generator).item())
        partner = torch.randperm(len(x), generator=generator)
        row, column = (torch.randint(size, (1,), generator=generator).item() for size in (height, width))
        half_high, half_wide = int(height * side) // 2, int(width * side) // 2
        top, bottom = max(row - half_high, 0), min(row + half_high, height)
        left, right = max(column - half_wide, 0), min(column + half_wide, width)
        made = x.clone()
        made[:, :, top:bottom, left:right] = x[partner, :, top:bottom, left:right]
        return made, partner, 1 - (bottom - top) * (right - left) / (height * width)

    return mix


def both(loss: Loss, out: Tensor, target: Tensor, partner: Tensor, share: float | Tensor) -> Tensor:
    """A loss of the samples and of their partners, by their shares."""
    if isinstance(share, float):
        return share * loss(out, target, None) + (1 - share) * loss(out, target[partner], None)
    return loss(out, target, share) + loss(out, target[partner], 1 - share)


def cross_entropy(out: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """Of labels; ``weights``: of rows."""
    if weights is None:
        return F.cross_entropy(out, y)
    return (weights * F.cross_entropy(out, y, reduction="none")).sum() / len(out)


def kl_of_rows(out: Tensor, probs: Tensor, weights: Tensor | None, temperature: float) -> Tensor:
    """Hinton's loss; ``weights``: of rows."""
    if weights is None:
        return kl(out, probs, temperature)
    rows = F.kl_div(F.log_softmax(out / temperature, -1), probs, reduction="none").sum(-1)
    return (weights * rows).sum() / len(out) * temperature**2


def distil(
    student: nn.Module,
    teacher: nn.Module,
    data: Data,
    make: MakeOptimizer,
    mix: Mix,
    seeds: Sequence[int],
    *,
    consistent: bool,
    temperature: float = 4.0,
    alpha: float = 0.5,
) -> None:
    """``alpha * mixed CE + (1 - alpha) * T² KL``, the teacher on the same mix, or on the samples, then mixed as labels.

    ``seeds``: of each batch's generator.
    """
    optimizer = make(student.parameters())
    for at, seed in zip(data.batches(), seeds, strict=True):
        x, y = data.x[at], data.y[at]
        made, partner, share = mix(x, torch.Generator().manual_seed(seed))
        out = student(made)
        target = F.softmax(answer(teacher, made if consistent else x, data.size) / temperature, -1)
        loss = alpha * both(cross_entropy, out, y, partner, share)  # the labels first, as kdmesh adds losses
        if consistent:
            loss = loss + (1 - alpha) * kl(out, target, temperature)
        else:
            loss = loss + (1 - alpha) * both(partial(kl_of_rows, temperature=temperature), out, target, partner, share)
        descend(optimizer, loss)
