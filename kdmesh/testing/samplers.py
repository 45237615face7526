"""The contract of a sampler."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count as numbers
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kdmesh.contracts.sampler import Axis, Choices, Point, Range, Sampler
from kdmesh.errors import MeshError
from kdmesh.offers import SamplerOffer
from kdmesh.sweep.budget import rungs
from kdmesh.sweep.design import Sweep, Trial, at
from kdmesh.sweep.search import Search
from kdmesh.tasks import Figure
from kdmesh.testing import small
from kdmesh.testing.base import Contract, refuse_other_draws
from kdmesh.testing.run_mesh import RunMesh

LISTED: tuple[Axis, ...] = (
    Choices(path="a", values=["mean", {"vote": {"of": [1, 2]}}, 3]),
    Range(path="b", low=1, high=5),
    Choices(path="c", values=[None, True]),
    Choices(path="d.0.e", values=[0.5, 1.5]),
    Range(path="f", low=-1, high=1),
    Choices(path="g", values=["", "g"]),
)
REAL: tuple[Axis, ...] = (
    Range(path="r", low=0.1, high=0.9),
    Range(path="s", low=1e-4, high=1e-1, log=True),
    Range(path="t", low=1, high=64, log=True),
)
FEW: tuple[Axis, ...] = (Choices(path="a", values=["x", "y"]), Range(path="b", low=1, high=2))
ONE: tuple[Axis, ...] = (Choices(path="a", values=["x"]),)
POINTS = 12

Told = Callable[[Point], float | None]


class SamplerContract(Contract):
    """Checks what a sampler proposes for spaces of one to six axes, and that it can be asked again.

    ``ranges``: it proposes numbers of ranges that cannot be counted, or that are logarithmic; one that does not refuses
    them as it is made (MeshError).
    """

    __test__ = False
    kind = "samplers"
    ranges: ClassVar[bool] = True

    @pytest.fixture
    def new(self, offer: SamplerOffer, settings: dict[str, Any], tmp_path: Path) -> Callable[..., Sampler]:
        """Makes a sampler: ``new(axes, count=..., seed=..., higher=..., folder=...)``, by default in a new folder."""
        fresh = numbers()

        def made(axes: Sequence[Axis], count: int = POINTS, folder: Path | None = None, **about: Any) -> Sampler:
            folder = folder or tmp_path / f"sampler-{next(fresh)}" / "own"
            folder.parent.mkdir(exist_ok=True)
            about = {"seed": 0, "higher": True, **about}
            sampler: Sampler = offer.make(settings, axes=axes, count=count, folder=folder, **about)
            return sampler

        return made

    def search(
        self, new: Callable[..., Sampler], run_mesh: RunMesh, backend: str
    ) -> list[tuple[Point, dict[str, str]]]:
        """Three points of a small mesh, trained and told of; each with the weights' sums."""
        fields = small.mesh(("a", "b"), small.model(), connect=[{"ensemble": {"teachers": "a", "student": "b"}}])
        axes = (
            Choices(path="train.optimizer.sgd.lr", values=[0.02, 0.1, 0.3, 0.6]),
            Choices(path="train.batch_size", values=[16, 32]),
        )
        sampler, found = new(axes, count=3), []
        for _ in range(3):
            point = sampler.ask()
            assert point is not None, "it ends before the points that were asked for"
            sets = [f"{path}={value}" for path, value in point.items()]
            run = run_mesh({**fields, **self.mesh}, *sets, backend=backend, out=False)
            sampler.tell(point, run.metric("b", "accuracy", "validation"))
            found.append((point, run.weights))
        return found

    def test_a_mesh_runs_with_it(self, new: Callable[..., Sampler], run_mesh: RunMesh) -> None:  # type: ignore[override]
        """Points of a small mesh that it proposes can be trained; searched again, it proposes the same ones."""
        assert self.search(new, run_mesh, "inline") == self.search(new, run_mesh, "inline"), (
            "searched again, it differs"
        )

    def test_ray_gives_the_same_bits(  # type: ignore[override]
        self, new: Callable[..., Sampler], run_mesh: RunMesh, on_ray: None
    ) -> None:
        """Where its points are trained on Ray, it proposes the same ones, which end with the same bits."""
        assert self.search(new, run_mesh, "ray") == self.search(new, run_mesh, "inline"), "on Ray it differs"

    @property
    def spaces(self) -> list[tuple[Axis, ...]]:
        """Spaces of one to six axes, of all kinds that it takes; copies, which a check may find changed."""
        mixed = (*REAL, *LISTED) if self.ranges else LISTED
        spaces = [mixed[:size] for size in range(1, 7)] + [LISTED]
        return [tuple(axis.model_copy(deep=True) for axis in axes) for axes in spaces]

    def test_points_are_of_the_space(self, new: Callable[..., Sampler]) -> None:
        """A value for each path, of its axis and of the type that the axis has; written as JSON it is the same."""
        for axes in self.spaces:
            before = [axis.model_dump() for axis in axes]
            for point in asked(new(axes), POINTS):
                refuse_other(point, axes)
            assert [axis.model_dump() for axis in axes] == before, "it changes the axes"

    def test_refuses_ranges_that_it_cannot_propose_of(self, new: Callable[..., Sampler]) -> None:
        """Where ``ranges`` is unset: a MeshError that names the path, before anything is asked."""
        for axis in () if self.ranges else REAL:
            with pytest.raises(MeshError, match=f"--over {axis.path}"):
                new((axis,))

    def test_gives_as_many_points_as_asked(self, offer: SamplerOffer, new: Callable[..., Sampler]) -> None:
        """As many as there are, or `count`; each once, unless it is adaptive: equal meshes are refused."""
        for axes, size in ((self.spaces[-2], POINTS), (LISTED, POINTS), (FEW, 4), (ONE, 1)):
            points = [at(point) for point in asked(new(axes, count=size), size)]
            assert len(points) == size, f"{len(points)} points where {size} were asked for"
            if not offer.adaptive:
                assert len({*points}) == size, "it proposes a point twice, and is not adaptive"

    def test_it_ends_for_good(self, offer: SamplerOffer, new: Callable[..., Sampler]) -> None:
        """Asked on where all points were proposed, it gives None, again and again; an adaptive one may repeat."""
        for axes, size in ((FEW, 4), (ONE, 1)):
            answers = list(turns(new(axes, count=size + 3), 3 * size + 3, 1, worth))
            ends = [point is None for point in answers]
            assert ends == sorted(ends), "it proposes again after it had no more"
            assert offer.adaptive or ends.count(False) == size, f"{ends.count(False)} points, and there are {size}"

    def test_equal_seeds_give_equal_points(self, new: Callable[..., Sampler]) -> None:
        """Whatever stands in the default generators, and wherever its folder is."""
        for axes in (ONE, self.spaces[-2], LISTED):
            random.seed(1)
            first = asked(new(axes, seed=7), POINTS)
            random.seed(2)
            assert asked(new(axes, seed=7), POINTS) == first, "asked the same, it proposes other points"

    def test_another_process_gives_the_same_points(
        self, offer: SamplerOffer, settings: dict[str, Any], new: Callable[..., Sampler], tmp_path: Path
    ) -> None:
        """A sweep is resumed in another process, in which sets of texts have another order."""
        axes = self.spaces[-2]
        given = {
            "path": sys.path,
            "factory": offer.factory,
            "config": f"{offer.config.__module__}:{offer.config.__qualname__}",
            "settings": settings,
            "axes": [[type(axis).__name__, axis.model_dump()] for axis in axes],
            "folder": str(tmp_path / "other"),
        }
        done = subprocess.run(
            [sys.executable, "-c", OTHER, json.dumps(given), str(POINTS)],
            env={**os.environ, "PYTHONHASHSEED": "123"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == asked(new(axes), POINTS), "another process proposes others"

    def test_draws_from_its_own_generator(self, offer: SamplerOffer, new: Callable[..., Sampler]) -> None:
        """The default generators of numpy and Python are as they were: trials of this process draw from them."""
        sampler = new(self.spaces[-2])  # a library may draw as it is imported
        with refuse_other_draws(offer.name):
            asked(sampler, POINTS)

    def test_learns_only_if_it_says_so(self, offer: SamplerOffer, new: Callable[..., Sampler]) -> None:
        """One that is not `adaptive` proposes the same whatever it is told: it is asked for all points at once."""
        if offer.adaptive:
            return
        for axes in self.spaces:
            told = [list(turns(new(axes), POINTS, turn, figure)) for turn, figure in ((12, worth), (1, _never))]
            assert told[0] == told[1], "what it is told changes what it proposes: its offer says nothing of `adaptive`"

    @pytest.mark.parametrize("turn", [1, 3])
    def test_goes_on_where_it_was(self, new: Callable[..., Sampler], tmp_path: Path, turn: int) -> None:
        """Made again in its folder, or in an empty one, and asked and told as before, it goes on as if never gone."""
        axes = self.spaces[-2]
        whole = list(turns(new(axes), POINTS, turn, sometimes))
        for calls in (1, 2, 4, POINTS + 1):
            kept = tmp_path / f"kept-{calls}" / "own"
            list(turns(new(axes, folder=kept), POINTS, turn, sometimes, calls))
            for name, again in (("its", new(axes, folder=kept)), ("an empty", new(axes))):
                found = list(turns(again, POINTS, turn, sometimes))
                assert found == whole, f"stopped after {calls} calls, it goes on otherwise in {name} folder"

    @pytest.mark.parametrize("higher", [True, False])
    def test_takes_any_figures(self, new: Callable[..., Sampler], higher: bool) -> None:
        """All failed, all equal, some failed, figures of any size: it proposes on."""
        for figure in (_never, lambda point: 0.25, sometimes, lambda point: 1e300 * worth(point), lambda point: -0.0):
            points = asked(new(self.spaces[-2], higher=higher), POINTS, 2, figure)
            assert len(points) == POINTS, f"it ends after {len(points)} points"

    def test_keeps_to_its_folder(self, new: Callable[..., Sampler], tmp_path: Path, monkeypatch: Any) -> None:
        """It writes nowhere else: neither beside its folder nor where kdmesh was started."""
        here, home = tmp_path / "here", tmp_path / "home"
        here.mkdir()
        monkeypatch.chdir(here)
        sampler = new(self.spaces[-2], folder=home / "own")
        list(turns(sampler, POINTS, 2, worth))
        assert not [*here.iterdir()], "it writes where kdmesh was started"
        assert {path.name for path in home.iterdir()} <= {"own"}, "it writes beside its folder"

    def test_a_search_goes_by_validation_alone(self, offer: SamplerOffer, new: Callable[..., Sampler]) -> None:
        """A search by it makes as many trials as were planned, none on test; the best goes on and is chosen.

        Trials without a figure, or with NaN, are neither. An adaptive one is asked in turns, any other halved too.
        """
        for axes, metric in ((LISTED, Figure("accuracy")), (FEW, Figure("loss", higher=False)), (ONE, Figure("x"))):
            for planned in ([(9, 1)],) if offer.adaptive else ([(9, 1)], rungs(9, 3, 9)):
                sampler = new(axes, count=9, higher=metric.higher)
                refuse_search(sampler, list(axes), planned, metric, turn=2 if offer.adaptive else 0)


def worth(point: Point) -> float:
    """A figure in [0, 1) that a point always has."""
    return zlib.crc32(at(point).encode()) / 2**32


def turns(sampler: Sampler, count: int, turn: int, figure: Told, calls: int = 10_000) -> Iterator[Point | None]:
    """Ask ``count`` times, and tell after each ``turn`` points; every answer. At most so many ``calls`` of either."""
    left, spent = count, numbers(1)
    while left > 0:
        answers = []
        for _ in range(min(turn, left)):
            yield (point := sampler.ask())
            if next(spent) == calls:
                return
            answers.append(point)
        for point in answers:
            if point is not None:
                sampler.tell(point, figure(point))
                if next(spent) == calls:
                    return
        left -= len(answers)


def asked(sampler: Sampler, count: int, turn: int = 1, figure: Told = worth) -> list[Point]:
    """Ask for so many points, and tell of each; those that there are."""
    return [point for point in turns(sampler, count, turn, figure) if point is not None]


def sometimes(point: Point) -> float | None:
    """A figure that some points always lack."""
    return value if (value := worth(point)) > 0.3 else None


def _never(point: Point) -> None:
    return None


def refuse_other(point: Point, axes: Sequence[Axis]) -> None:
    """Assert that a point is one of the space."""
    assert isinstance(point, dict) and point.keys() == {axis.path for axis in axes}, f"{point}: not a value a path"
    assert json.loads(json.dumps(point)) == point, f"{point} is other values once it is written as JSON"
    for axis in axes:
        value = point[axis.path]
        if isinstance(axis, Choices):
            known = any(type(value) is type(one) and value == one for one in axis.values)
            assert known, f"{axis.path}: {value!r} is none of {axis.values}"
        else:
            assert type(value) is (int if axis.whole else float), f"{axis.path}: {value!r} is no number of the range"
            assert axis.low <= value <= axis.high, f"{axis.path}: {value!r} is not from {axis.low} to {axis.high}"


class Heard(Sampler):
    """Another sampler, and what it was told."""

    def __init__(self, other: Sampler) -> None:
        self.other, self.axes = other, other.axes
        self.told: list[float | None] = []

    def ask(self) -> Point | None:
        """As the other."""
        return self.other.ask()

    def tell(self, point: Point, value: float | None) -> None:
        """Keep it."""
        self.told.append(value)
        self.other.tell(point, value)


def refuse_search(
    sampler: Sampler, axes: list[Axis], planned: list[tuple[int, int]], metric: Figure, turn: int
) -> None:
    """Assert of a whole search that it keeps to its budget, and that figures alone decide."""
    heard = Heard(sampler)
    sweep = Sweep(
        name="x", given={}, anchor="", text="", beside=[], agent="s", axes=axes, points=9, turn=turn, arms={"mesh": []}
    )
    search = Search("mesh", sweep, planned, heard, metric)
    trials: list[Trial] = []
    while wanted := search.wanted():
        trials += wanted
        search.take(partly)
    assert Counter(trial.part for trial in trials) == {part: count for count, part in planned}, "not those planned"
    assert len({*trials}) == len(trials) and not any(trial.tested for trial in trials)
    assert len(heard.told) == planned[0][0] and all(value is None or math.isfinite(value) for value in heard.told)
    for (_, part), (count, later) in pairwise(planned):
        sound = sorted(worths(trials, part, metric).values(), reverse=True)
        went = worths(trials, later, metric)
        assert sorted(went.values(), reverse=True) == sound[:count], "others than the best went on"
    last = worths(trials, planned[-1][1], metric)
    assert (search.chosen is None) == (not last), "one is chosen that failed, or none although some did not"
    if search.chosen is not None:
        assert last[search.chosen.at] == max(last.values()), "not the best is chosen"


def worths(trials: Sequence[Trial], part: int, metric: Figure) -> dict[str, float]:
    """The points that were trained with a budget so many times smaller, and did not fail: how good each is."""
    figures = {trial.at: partly(trial) for trial in trials if trial.part == part}
    return {at: metric.worth(value) for at, value in figures.items() if value is not None and math.isfinite(value)}


def partly(trial: Trial) -> float | None:
    """A trial's figure: of some points none, of some NaN."""
    share = worth(trial.point)
    return None if share < 0.2 else math.nan if share < 0.3 else share


OTHER = """
import json, sys, zlib
given, count = json.loads(sys.argv[1]), int(sys.argv[2])
sys.path[:] = given["path"]
from importlib import import_module
from pathlib import Path
import kdmesh.samplers as samplers

def found(text):
    module, _, attribute = text.partition(":")
    return getattr(import_module(module), attribute)

fields = found(given["config"]).model_validate(given["settings"])
axes = [getattr(samplers, name)(**axis) for name, axis in given["axes"]]
folder = Path(given["folder"])
folder.mkdir()
settings = {name: getattr(fields, name) for name in type(fields).model_fields}
sampler = found(given["factory"])(axes=axes, count=count, seed=0, higher=True, folder=folder / "own", **settings)
points = []
for _ in range(count):
    points.append(sampler.ask())
    text = json.dumps(points[-1], sort_keys=True, ensure_ascii=False)
    sampler.tell(points[-1], zlib.crc32(text.encode()) / 2**32)
print(json.dumps(points))
"""
