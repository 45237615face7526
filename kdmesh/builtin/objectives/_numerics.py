"""What objectives share: precision, silent samples, and logarithms that stay finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kdmesh.signals.lazy import Lazy, dense

Distance = Callable[..., Tensor]  # of torch's functions: student, target, and by which reduction
Reduce = Callable[[Tensor, Tensor | None], Tensor]


def at_least_float32(values: Tensor) -> Tensor:
    """Raise half precision (float16, bfloat16) to float32; leave everything else as it is."""
    if values.dtype is torch.float32:  # nearly always
        return values
    return values.float() if values.is_floating_point() and values.element_size() < 4 else values


def kept(values: Tensor, weights: Tensor | None) -> Tensor:
    """Put zeros for the samples of weight 0, so that a NaN there reaches neither the loss nor a gradient."""
    if weights is None:
        return values
    keep = (weights != 0).view(-1, *[1] * (values.dim() - 1))
    return torch.where(keep, values, 0)


def comparable(student: Tensor | Lazy, target: Tensor | Lazy, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return both sides made, in one dtype, at least float32, with silent samples as zeros.

    Raises ValueError if the shapes differ: broadcasting would compare every class with every other.
    """
    if student.shape != target.shape:
        raise ValueError(f"student {list(student.shape)} and target {list(target.shape)} differ in shape")
    student, target = at_least_float32(dense(student)), dense(target)
    if target.dtype != student.dtype:
        target = target.to(student.dtype)
    return kept(student, weights), kept(target, weights)


def distance(measure: Distance, student: Tensor, target: Tensor, reduce: Reduce, weights: Tensor | None) -> Tensor:
    """The reduced distances of elements. Columns that both sides rule out (-inf) are equal: their distance is 0.

    A list of candidates that is shorter than others ends in such columns.
    """
    if student.device.type == "cpu" and not torch.compiler.is_compiling():
        loss = reduce(measure(student, target, reduction="none"), weights)
        if math.isfinite(loss.item()):  # reading a number is cheaper than a guard, which few need
            return loss
    out = (student == -math.inf) & (target == -math.inf)
    return reduce(measure(student.masked_fill(out, 0), target.masked_fill(out, 0), reduction="none"), weights)


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """``logits / T``; at T = 1 the logits themselves: the same bits, and two nodes less in the graph."""
    return logits if temperature == 1.0 else logits / temperature


def probs(target: Tensor, form: str, temperature: float) -> Tensor:
    """The target's distribution: ``softmax(target / T)`` of logits, given probabilities as they are."""
    return F.softmax(tempered(target, temperature), dim=-1) if form == "logits" else target


def floored(log_p: Tensor, out: Tensor | None = None) -> Tensor:
    """Log-probabilities with the smallest normal number's logarithm in place of -inf, so that 0 log 0 is 0.

    A class with a logit of -inf thus costs whoever gives it mass much, not infinitely much, as one of probability 0
    does; no gradient reaches such a logit. ``out`` may be the tensor itself.
    """
    floor = math.log(torch.finfo(log_p.dtype).tiny)
    return torch.nan_to_num(log_p, nan=math.nan, posinf=math.inf, neginf=floor, out=out)


def possible(log_q: Tensor, absent: Tensor) -> Tensor:
    """Log-probabilities with a finite number in place of -inf where ``absent`` (bool) says that the target has no mass.

    There 0 log 0 is 0. A -inf elsewhere stays: mass on a class that the student rules out is an infinite loss.
    """
    floor = math.log(torch.finfo(log_q.dtype).tiny)
    return log_q.masked_fill(absent & (log_q == -math.inf), floor)


def log_probs(target: Tensor, form: str, temperature: float) -> Tensor:
    """Its logarithm: ``log_softmax`` of logits, given probabilities clamped at the smallest normal number; finite."""
    if form == "logits":
        return floored(tempered(target, temperature).log_softmax(-1))
    return target.clamp_min(torch.finfo(target.dtype).tiny).log()


def same_size(student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool feature maps ``[B, C, H, W]`` to the smaller height and the smaller width of the two."""
    (h1, w1), (h2, w2) = student.shape[-2:], target.shape[-2:]
    size = (min(h1, h2), min(w1, w2))
    pooled = [x if x.shape[-2:] == size else F.adaptive_avg_pool2d(x, size) for x in (student, target)]
    return pooled[0], pooled[1]
