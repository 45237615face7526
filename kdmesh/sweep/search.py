"""The search of one arm, the mesh or a control: which trials it wants next, and which point it chooses.

A point that is proposed again is trained with further seeds. So an arm with fewer different points than the mesh, a
control that some of the paths do not concern, has as many trials, and knows each of its points better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import cycle, islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.sampler import refuse_point
from kdmesh.errors import FAULTS
from kdmesh.plugins import registry
from kdmesh.sweep.design import Trial, at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kdmesh.contracts.sampler import Point, Sampler
    from kdmesh.sweep.design import Sweep
    from kdmesh.tasks import Figure


@dataclass
class Tried:
    """A point in a rung.

    Attributes:
        at: the point, as JSON.
        rung, part: of how manieth, and by what the budget is divided there.
        trials: those it was trained with.
        mean: their figure on validation; None where one of them failed, or is not made yet.
    """

    at: str
    rung: int
    part: int
    trials: list[Trial] = field(default_factory=list)
    mean: float | None = None


class Search:
    """Wants trials, takes their figures, and wants more, until it has chosen."""

    def __init__(
        self,
        arm: str,
        sweep: Sweep,
        rungs: list[tuple[int, int]],
        sampler: Sampler,
        metric: Figure,
    ) -> None:
        """``rungs``: for each, how many points and by what the budget is divided."""
        self.arm, self.sweep, self.rungs, self.metric = arm, sweep, rungs, metric
        self.sampler = sampler
        self.tried: dict[tuple[int, str], Tried] = {}
        self.chosen: Tried | None = None
        self._rung = 0
        self._proposed: list[Point] = []
        self._turn: list[list[Trial]] = []
        self._kept: list[str] = []

    def wanted(self) -> list[Trial]:
        """The trials of the next turn; none where the search is over."""
        self._turn = []
        if self._rung < len(self.rungs):
            points, part = self.rungs[self._rung]
            ask = [at(point) for point in self._propose(points)] if self._rung == 0 else self._kept
            self._turn = [self._again(point, part) for point in ask]
        return [trial for trials in self._turn for trial in trials]

    def take(self, figures: Callable[[Trial], float | None]) -> None:
        """Take the figures of the trials that were wanted last."""
        if self._rung == 0:
            for point, trials in zip(self._proposed[-len(self._turn) :], self._turn, strict=True):
                try:
                    self.sampler.tell(point, _mean(trials, figures))
                except FAULTS as error:
                    name = self.sweep.sampler[0]
                    doing = f"as it was told of {at(point)}"
                    registry().attribute_error("samplers", name, error, doing, f"--sampler {name}")
            if len(self._proposed) < self.rungs[0][0]:
                return
        for one in self._here():
            one.mean = _mean(one.trials, figures)
        best = self._ranked()
        self._rung += 1
        if self._rung < len(self.rungs) and best:
            points = self.rungs[self._rung][0]
            self._kept = list(islice(cycle([one.at for one in best[:points]]), points))
        else:
            self._rung = len(self.rungs)
            self.chosen = best[0] if best else None

    def _here(self) -> list[Tried]:
        return [one for one in self.tried.values() if one.rung == self._rung]

    def _ranked(self) -> list[Tried]:
        """The points of this rung that did not fail, the best first; of equals the one that was proposed first."""
        worth = {one.at: self.metric.worth(one.mean) for one in self._here() if one.mean is not None}
        return sorted((one for one in self._here() if one.at in worth), key=lambda one: -worth[one.at])

    def _propose(self, points: int) -> list[Point]:
        """The next proposals; where the sampler has no more, its points come again, from the first on."""
        before, most = len(self._proposed), points
        if self.sweep.turn:
            most = min(points, before + self.sweep.turn)
        while len(self._proposed) < most:
            point = proposal(self.sampler, self.sweep.sampler[0], first=not self._proposed)
            if point is None:
                self._proposed = list(islice(cycle(self._proposed), most))
            else:
                self._proposed.append(point)
        return self._proposed[before:]

    def _again(self, point: str, part: int) -> list[Trial]:
        """The trials of a point that is proposed, with the next seeds."""
        one = self.tried.setdefault((self._rung, point), Tried(point, self._rung, part))
        first = len(one.trials)
        seeds = range(first, first + self.sweep.search_seeds)
        made = [Trial(arm=self.arm, at=point, seed=self.sweep.search_seed(seed), part=part) for seed in seeds]
        one.trials += made
        return made


def sampler_of(name: str, config: Mapping[str, Any], **about: Any) -> Sampler:
    """A sampler of a name and settings, for a space; RunFailed, with whose it is, where it cannot be made."""
    offer = registry().find("samplers", name, "--sampler")
    try:
        sampler: Sampler = offer.make(dict(config), **about)
    except FAULTS as error:
        registry().attribute_error("samplers", name, error, "to be made", f"--sampler {name}")
    return sampler


def proposal(sampler: Sampler, name: str, first: bool = False) -> Point | None:
    """The next point of a sampler of a name; None where it has no more, which it must not say ``first``.

    RunFailed, with whose it is, where it gives none of its space.
    """
    try:
        point = sampler.ask()
        if point is not None or first:
            refuse_point(point, sampler.axes)
    except FAULTS as error:
        registry().attribute_error("samplers", name, error, "to propose a point", f"--sampler {name}")
    return point


def _mean(trials: list[Trial], figures: Callable[[Trial], float | None]) -> float | None:
    """The mean of the trials' figures; None where one has none that is finite."""
    values = [figures(trial) for trial in trials]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if len(known) == len(values) else None
