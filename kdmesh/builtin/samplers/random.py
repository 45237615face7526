"""Points drawn at random.

Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", 2012: where few of the settings matter, as many
random points try more different values of these than a grid does.
"""

from __future__ import annotations

import json
from math import prod
from random import Random
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.sampler import Range, Sampler

if TYPE_CHECKING:
    from kdmesh.contracts.sampler import Axis, Point

TRIES = 1000  # draws for a point that was not drawn before


class Uniform(Sampler):
    """Independent uniform draws from every axis, without a point twice."""

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self._random, self._seen = Random(self.seed), set[str]()
        sizes = [axis.listed() for axis in self.axes]
        self._size = prod(len(values) for values in sizes if values is not None) if None not in sizes else None

    def ask(self) -> Point | None:
        """A point that was not drawn before; None where there is none left, or none is found."""
        while self._size is None or len(self._seen) < self._size:
            for _ in range(TRIES):
                point = {axis.path: self._drawn(axis) for axis in self.axes}
                if (key := json.dumps(point)) not in self._seen:
                    self._seen.add(key)
                    return point
            if self._size is None:
                return None
        return None

    def _drawn(self, axis: Axis) -> Any:
        share = self._random.random()
        return axis.at(share) if isinstance(axis, Range) else axis.values[int(share * len(axis.values))]
