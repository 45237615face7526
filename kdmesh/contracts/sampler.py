"""The interface of a sampler: it proposes points of a space, and may learn from what is told of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Point = dict[str, Any]
"""A value for each path."""


class Choices(BaseModel):
    """``values`` of a ``path`` of the mesh's file, in the order given; ``ends``: the first and the last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    values: list[Any] = Field(min_length=1)

    @property
    def ends(self) -> tuple[Any, Any]:
        """The first value and the last."""
        return self.values[0], self.values[-1]

    def listed(self) -> list[Any]:
        """Every value."""
        return self.values


class Range(BaseModel):
    """Numbers of a ``path`` of the mesh's file, from ``low`` to ``high``, both included.

    ``whole``: whole ones, which they are where both ends are. ``log``: equal ratios are equally likely, not equal
    differences. ``ends``: the lowest and the highest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    low: int | float
    high: int | float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Any, Any]:
        """The lowest value and the highest."""
        return self.low, self.high

    def listed(self) -> list[Any] | None:
        """Every value; None where there are too many to count."""
        return list(range(int(self.low), int(self.high) + 1)) if self.whole and self.high - self.low < 1e6 else None

    def at(self, share: float) -> int | float:
        """The value that so large a share of the range lies below; ``share`` in [0, 1)."""
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        value = math.exp(math.log(low) + share * math.log(high / low)) if self.log else low + share * (high - low)
        return min(max(round(value), self.low), self.high) if self.whole else min(max(value, self.low), self.high)


Axis = Choices | Range


def refuse_point(point: Any, axes: Sequence[Axis]) -> None:
    """Raise ValueError for what is no point of a space: one of its values for each path, and nothing else."""
    if not isinstance(point, dict) or point.keys() != {axis.path for axis in axes}:
        said = "no point" if point is None else repr(point)[:60]
        raise ValueError(f"it proposes {said}, not a value for each path")
    for axis in axes:
        value = point[axis.path]
        if isinstance(axis, Choices):
            fits = any(type(value) is type(one) and value == one for one in axis.values)
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            fits = number and axis.low <= value <= axis.high and (not axis.whole or value == int(value))
        if not fits:
            raise ValueError(f"it proposes {value!r:.60} for {axis.path}, which is not among its values")


class Sampler:
    """Proposes points. It must answer the same calls in the same way again, so that a sweep can go on.

    ``axes``: the space. ``count``: points that will be asked for. ``seed``: of what it draws. ``higher``: whether a
    larger value is better. ``folder``: where it may keep files of its own, which it
    makes. The settings of its offer follow.
    """

    def __init__(self, *, axes: Sequence[Axis], count: int, seed: int, higher: bool, folder: Path) -> None:
        self.axes, self.count, self.seed, self.higher, self.folder = list(axes), count, seed, higher, folder

    def ask(self) -> Point | None:
        """The next point, a value for each axis; None where there is none left."""
        raise NotImplementedError

    def tell(self, point: Point, value: float | None) -> None:
        """Take a point's figure on validation, which is finite; None where it failed, or has none.

        Told in the order in which points were asked, also of those that come again because no others are left.
        """
