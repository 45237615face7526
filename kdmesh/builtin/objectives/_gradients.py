"""What closed-form gradients are written with: a few rows of both sides, in memory that is used again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdmesh.builtin.objectives._numerics import floored


@dataclass(slots=True)
class Rows:
    """A few rows of both sides at T, ``[r, V]`` each, all of which may be overwritten."""

    q: Tensor  # the student's probabilities
    log_q: Tensor  # finite where q is 0, unless the objective is unbounded
    p: Tensor  # the target's
    log_p: Tensor  # finite where p is 0
    spare: Tensor  # anything

    @classmethod
    def of(
        cls, logits: Tensor, target: Tensor, form: str, temperature: float, spare: Tensor, *, finite: bool = True
    ) -> Rows:
        """Overwrite the student's logits, and put the rest into ``spare [4, r, V]``; the target stays as it is."""
        q, p, log_p, more = spare.unbind(0)
        log_q = soften(logits, temperature, q, logits)
        if finite:
            floored(log_q, out=log_q)
        if form == "logits":
            floored(soften(target, temperature, p, log_p), out=log_p)
        else:
            logarithm(p.copy_(target), out=log_p)
        return cls(q, log_q, p, log_p, more)


def soften(logits: Tensor, temperature: float, p: Tensor, log_p: Tensor) -> Tensor:
    """Put ``softmax(logits / T)`` into ``p`` and its logarithm into ``log_p``, which may be the logits; return that.

    The exponentials are the dearest part and computed once: the largest of ``p`` tells the sum of them.
    """
    if logits.dtype != log_p.dtype:
        logits = log_p.copy_(logits)
    if temperature != 1.0:
        logits = torch.div(logits, temperature, out=log_p)
    torch.softmax(logits, -1, out=p)
    total = logits.amax(-1, keepdim=True) - p.amax(-1, keepdim=True).log()
    return torch.sub(logits, total, out=log_p)


def logarithm(p: Tensor, out: Tensor) -> Tensor:
    """Put ``log p`` into ``out``, clamped at the smallest normal number; ``out`` may be ``p``."""
    return torch.clamp(p, min=torch.finfo(p.dtype).tiny, out=out).log_()


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Dot products of rows ``[r, V]``, ``[r]``."""
    return torch.linalg.vecdot(a, b)


def expected(p: Tensor, values: Tensor) -> Tensor:
    """``sum_v p values`` of rows, ``[r]``, where 0 times an infinite number is 0. May overwrite such ``values``."""
    if values.device.type == "cpu":  # on a GPU reading a number would wait
        sums = dots(p, values)
        if bool(sums.isfinite().all()):
            return sums
    return dots(p, values.masked_fill_(p == 0, 0.0))


def through_softmax(q: Tensor, a: Tensor) -> Tensor:
    """Put ``q (a - sum_v q a)`` in the place of ``q``: the gradient by the logits, given ``a = dl/dq``.

    A constant added to ``a`` changes nothing in it. Overwrites ``a`` and returns ``sum_v q a``, ``[r]``.
    """
    mean = dots(q, a)
    q.mul_(a.sub_(mean[:, None]))
    return mean
