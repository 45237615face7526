"""The contract of samplers finds what is wrong, and says it in words."""

from __future__ import annotations

import os
import random
import sys
from inspect import signature
from itertools import count, product

import pytest

from kdmesh.builtin.samplers.random import Uniform
from kdmesh.cli.plugins_new import package
from kdmesh.offers import Config, SamplerOffer
from kdmesh.samplers import Range
from kdmesh.testing import SamplerContract
from kdmesh.testing.samplers import OTHER

pytest_plugins = ["pytester"]


class Right(Uniform):
    """Nothing is wrong with it."""


class Elsewhere(Uniform):
    def ask(self):
        point = super().ask()
        return point and {**point, next(iter(point)): "elsewhere"}


class Unnamed(Uniform):
    def ask(self):
        point = super().ask()
        return point and dict(list(point.items())[1:])


class Fractional(Uniform):
    def ask(self):
        point = super().ask()
        whole = {axis.path for axis in self.axes if isinstance(axis, Range) and axis.whole}
        return point and {path: float(value) if path in whole else value for path, value in point.items()}


class Changing(Uniform):
    def ask(self):
        for axis in self.axes:
            if hasattr(axis, "values"):
                axis.values.append(3)
        return super().ask()


class Short(Uniform):
    def ask(self):
        return super().ask() if len(self._seen) < self.count - 2 else None


class Repeating(Uniform):
    def ask(self):
        self._seen.clear()
        return super().ask()


class Reviving(Uniform):
    def ask(self):
        point = super().ask()
        if point is None:
            self._seen.clear()
        return point


class Unseeded(Uniform):
    def __init__(self, **about):
        super().__init__(**about)
        self._random = random


NUMBERS = count()


class Counting(Uniform):
    """Another for each that was made before."""

    def __init__(self, **about):
        super().__init__(**{**about, "seed": about["seed"] + next(NUMBERS)})


class Hashing(Uniform):
    """Seeded by a hash of texts, which another process has otherwise."""

    def __init__(self, **about):
        super().__init__(**{**about, "seed": hash("seed")})


class Secret(Uniform):
    """Learns, and its offer does not say so."""

    def tell(self, point, value):
        self._random.seed(repr(value))


class Forgetful(Uniform):
    """Draws on from where its folder says, also for points that it proposed before."""

    def __init__(self, **about):
        super().__init__(**about)
        self.folder.mkdir(exist_ok=True)
        for _ in self.folder.iterdir():
            self._random.random()

    def ask(self):
        (self.folder / str(len(self._seen))).touch()
        return super().ask()


class Proud(Uniform):
    def tell(self, point, value):
        self.best = max(getattr(self, "best", 0.0), value)


class Littering(Uniform):
    def ask(self):
        with open("journal.log", "a") as file:
            file.write("asked\n")
        return super().ask()


class Beside(Uniform):
    def ask(self):
        (self.folder.parent / "journal.log").touch()
        return super().ask()


class Uncounted(Uniform):
    """Takes ranges that it cannot list, and was declared not to."""


CHECKS = sorted(
    name
    for name, check in vars(SamplerContract).items()
    if name.startswith("test_") and not {"run_mesh", "request"} & {*signature(check).parameters}
)


def verdict(sampler, check, tmp_path, monkeypatch, ranges=True, turn=1):
    """Run one check of the contract on a sampler of this module."""
    kit = type("Declared", (SamplerContract,), {"ranges": ranges, "__test__": False})()
    offer = SamplerOffer(sampler.__name__.lower(), f"{__name__}:{sampler.__name__}", Config, "for a test")
    known = {"offer": offer, "settings": {}, "tmp_path": tmp_path, "monkeypatch": monkeypatch, "turn": turn}
    known["higher"] = True
    known["new"] = SamplerContract.new.__wrapped__(kit, offer, {}, tmp_path)
    call = getattr(kit, check)
    call(**{name: known[name] for name in signature(call).parameters})


@pytest.mark.parametrize("check", CHECKS)
def test_a_right_sampler_passes(check, tmp_path, monkeypatch):
    verdict(Right, check, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("broken", "check", "said"),
    [
        (Elsewhere, "test_points_are_of_the_space", "'elsewhere' is"),
        (Unnamed, "test_points_are_of_the_space", "not a value a path"),
        (Fractional, "test_points_are_of_the_space", "is no number of the range"),
        (Changing, "test_points_are_of_the_space", "changes the axes"),
        (Short, "test_gives_as_many_points_as_asked", "10 points where 12"),
        (Repeating, "test_gives_as_many_points_as_asked", "a point twice"),
        (Reviving, "test_it_ends_for_good", "proposes again"),
        (Repeating, "test_it_ends_for_good", "points, and there are 4"),
        (Unseeded, "test_equal_seeds_give_equal_points", "asked the same"),
        (Counting, "test_equal_seeds_give_equal_points", "asked the same"),
        (Hashing, "test_another_process_gives_the_same_points", "another process"),
        (Unseeded, "test_draws_from_its_own_generator", "Python's generator"),
        (Secret, "test_learns_only_if_it_says_so", "says nothing of `adaptive`"),
        (Forgetful, "test_goes_on_where_it_was", "otherwise in its folder"),
        (Counting, "test_goes_on_where_it_was", "goes on otherwise"),
        (Littering, "test_keeps_to_its_folder", "where kdmesh was started"),
        (Beside, "test_keeps_to_its_folder", "beside its folder"),
    ],
)
def test_a_broken_sampler_is_found(broken, check, said, tmp_path, monkeypatch):
    with pytest.raises(AssertionError, match=said):
        verdict(broken, check, tmp_path, monkeypatch)


def test_a_figure_that_it_cannot_take_is_found(tmp_path, monkeypatch):
    for check in ("test_takes_any_figures", "test_goes_on_where_it_was"):
        with pytest.raises(TypeError):
            verdict(Proud, check, tmp_path, monkeypatch)


def test_ranges_that_it_should_refuse_are_found(tmp_path, monkeypatch):
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        verdict(Uncounted, "test_refuses_ranges_that_it_cannot_propose_of", tmp_path, monkeypatch, ranges=False)


def test_the_other_process_tells_the_same_figures():
    """What stands in the text of its program is what the checks here compute."""
    from kdmesh.testing.samplers import worth

    lines = [line for line in OTHER.splitlines() if "text = " in line or "crc32" in line]
    scope = {"points": [{"a": "é", "b": [1]}], "told": []}
    scope["sampler"] = type("Sampler", (), {"tell": staticmethod(lambda point, value: scope["told"].append(value))})
    exec("import json, zlib\n" + "\n".join(line.strip() for line in lines), scope)
    assert scope["told"] == [worth(point) for point in scope["points"]]


@pytest.mark.slow  # a package of every kind that `new` writes is in test_new_packages.py
def test_the_sampler_that_new_writes_keeps_its_contract(pytester, monkeypatch):
    for name, text in package("kdmesh-even", "sampler").items():
        path = pytester.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(pytester.path), *sys.path])))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q", "tests")  # and leaves our modules alone
    assert result.ret == 0, result.stdout.str()


def test_every_kind_of_axis_is_tried(tmp_path):
    offer = SamplerOffer("right", f"{__name__}:Right", Config, "for a test")
    spaces = SamplerContract().spaces
    assert sorted({len(axes) for axes in spaces}) == [1, 2, 3, 4, 5, 6]
    tried = [axis for axes in spaces for axis in axes]
    kinds = {(type(axis).__name__, getattr(axis, "whole", None), getattr(axis, "log", None)) for axis in tried}
    assert kinds == {("Choices", None, None), *(("Range", *both) for both in product([True, False], [True, False]))}
    assert SamplerContract.new.__wrapped__(SamplerContract(), offer, {}, tmp_path)(spaces[0]).count == 12
