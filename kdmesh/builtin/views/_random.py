"""Random numbers that belong to a sample: equal for equal (names, id, position), whatever batch the sample is in.

A counter-based generator in whole numbers: splitmix64 (G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014), first over the id, then over the position. Real numbers come from its bits by exact
operations and a table. No vectorised logarithm or cosine is involved: those may round a batch's last rows another way.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from torch import Tensor

BITS = 24  # as many as a float32 holds exactly
TABLE_BITS = 16


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that has it."""
    return value - (1 << 64) if value >= 1 << 63 else value


GOLDEN = _signed(0x9E3779B97F4A7C15)
FACTORS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


def _shifted(x: Tensor, by: int) -> Tensor:
    """Shift to the right, filling with zeros."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _scramble(x: Tensor) -> Tensor:
    """The output function of splitmix64, on int64 that wrap around."""
    for shift, factor in FACTORS:
        x = (x ^ _shifted(x, shift)) * factor
    return x ^ _shifted(x, 31)


def bits(count: int, ids: Tensor, *names: int | str, width: int = BITS) -> Tensor:
    """Return uniform whole numbers below ``2**width``, ``[B, count]`` int64, for ``ids [B]`` int64."""
    stream = _scramble(ids[:, None] * GOLDEN + mix(*names))
    return _shifted(_scramble(stream + torch.arange(1, count + 1, device=ids.device) * GOLDEN), 64 - width)


def below(p: float, shape: torch.Size, ids: Tensor, *names: int | str) -> Tensor:
    """Return True with probability ``p`` (to 24 bits), ``[B, *shape]`` bool."""
    return (bits(math.prod(shape), ids, *names) < round(p * (1 << BITS))).unflatten(1, shape)


def integers(high: int, count: int, ids: Tensor, *names: int | str) -> Tensor:
    """Return whole numbers ``0 .. high - 1``, ``[B, count]`` int64, uniform but for less than ``high / 2**24``."""
    return (bits(count, ids, *names) * high) >> BITS


def normal(shape: torch.Size, ids: Tensor, *names: int | str) -> Tensor:
    """Return standard normal numbers ``[B, *shape]`` float32: one of 65,536 quantiles each, so within 4.33."""
    drawn = bits(math.prod(shape), ids, *names, width=TABLE_BITS)
    return _quantiles().to(ids.device)[drawn].unflatten(1, shape)


@cache
def _quantiles() -> Tensor:
    """The normal quantiles at the middles of 65,536 equal parts, float32."""
    parts = 1 << TABLE_BITS
    return torch.special.ndtri((torch.arange(parts, dtype=torch.float64, device="cpu") + 0.5) / parts).float()


def need_image(x: Tensor, view: str) -> None:
    """Refuse samples that are no images ``[B, C, H, W]``."""
    if x.dim() != 4:
        raise MeshError(
            f"{view} moves pixels; the data's samples are {list(x.shape[1:])}",
            where=f"view.augment.{view}",
            instead="noise or drop, which read any shape",
        )
