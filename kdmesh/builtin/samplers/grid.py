"""Every combination of the values."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.sampler import Range, Sampler
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.contracts.sampler import Point


class Grid(Sampler):
    """The product of all axes; the last one changes fastest. Ranges of real numbers are a MeshError."""

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        for axis in self.axes:
            if axis.listed() is None or (isinstance(axis, Range) and axis.log):
                raise MeshError(
                    "a range has no grid",
                    where=f"--over {axis.path}",
                    instead=f"--random 20, or a list: {axis.path}={axis.ends[0]:g},{axis.ends[1]:g}",
                )
        self._points = product(*(axis.listed() or () for axis in self.axes))

    def ask(self) -> Point | None:
        """The next combination."""
        values = next(self._points, None)
        return None if values is None else dict(zip((axis.path for axis in self.axes), values, strict=True))
