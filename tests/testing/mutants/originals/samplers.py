"""Right samplers, of which wrong ones are made."""

from __future__ import annotations

import json
from random import Random

from kdmesh.samplers import Range, Sampler


class Drawn(Sampler):
    """Points drawn at random, none of them twice."""

    def __init__(self, **about):
        super().__init__(**about)
        self.random, self.seen = Random(self.seed), set()

    def ask(self):
        for _ in range(1000):
            point = {axis.path: self.value(axis) for axis in self.axes}
            key = json.dumps(point)
            if key not in self.seen:
                self.seen.add(key)
                return point
        return None

    def value(self, axis):
        share = self.random.random()
        return axis.at(share) if isinstance(axis, Range) else axis.values[int(share * len(axis.values))]
