from __future__ import annotations

import pytest

from kdmesh.builtin.samplers.grid import Grid
from kdmesh.builtin.samplers.random import Uniform
from kdmesh.contracts.sampler import Choices, Range
from kdmesh.errors import MeshError
from kdmesh.sweep.axes import axes, axis, size


def sampler(kind, *over, count=100, seed=0):
    return kind(axes=axes(over), count=count, seed=seed, higher=True, folder=None)


def drawn(made, most=100):
    found = []
    while len(found) < most and (point := made.ask()) is not None:
        found.append(point)
    return found


def test_values_are_yaml_and_ranges_have_two_ends():
    assert axis("a.b=1,2.5,x") == Choices(path="a.b", values=[1, 2.5, "x"])
    assert axis("a=[x, y],[x]").values == [["x", "y"], ["x"]]
    assert axis("a={kl: {temperature: 2}}, ce").values == [{"kl": {"temperature": 2}}, "ce"]
    assert axis("a=1..8") == Range(path="a", low=1, high=8) and axis("a=1..8").whole
    assert axis("a=log:1e-4..1e-1") == Range(path="a", low=1e-4, high=1e-1, log=True)
    assert size(axes(["a=1,2", "b=1..3"])) == 6 and size(axes(["a=0.5..1", "b=1,2"])) is None


@pytest.mark.parametrize(
    ("over", "said"),
    [
        (["a"], "PATH=1,2,4"),
        (["a="], "PATH=1,2,4"),
        (["a=1"], "one value is nothing to search"),
        (["a=1,1"], "stands twice"),
        (["a=1,2", "a=3,4"], "stands twice"),
        (["a=8..1"], "not below"),
        (["a=log:0..1"], "no logarithm"),
        (["a=[1,2"], "--over a"),
        (["seed=1,2"], "is not searched"),
        (["data.seed=1,2"], "is not searched"),
        ([], "nothing to search"),
        (["a=1,1.0"], "stands twice"),
        (["a=[1],[1.0]"], "stands twice"),
        (["a=0.1..1e400"], "has no end"),
        (["a..b=1,2"], "is no path"),
        ([".=1,2"], "is no path"),
        (["name=x,y"], "is not searched"),
        (["description=x,y"], "is not searched"),
    ],
)
def test_what_is_no_space_is_refused(over, said):
    with pytest.raises(MeshError) as refused:
        axes(over)
    assert said in str(refused.value)


def test_a_grid_has_every_combination_once():
    points = drawn(sampler(Grid, "a=1,2", "b=x,y", "c=1..2"))
    assert len(points) == 8 == len({str(point) for point in points})
    assert points[0] == {"a": 1, "b": "x", "c": 1} and points[1] == {"a": 1, "b": "x", "c": 2}
    with pytest.raises(MeshError, match="has no grid"):
        sampler(Grid, "a=0.1..1")


def test_random_points_are_seeded_different_and_within_their_ranges():
    over = ("a=log:1e-4..1e-1", "b=1..3", "c=x,y")
    points = drawn(sampler(Uniform, *over), 200)
    assert points == drawn(sampler(Uniform, *over), 200) != drawn(sampler(Uniform, *over, seed=1), 200)
    assert all(1e-4 <= point["a"] <= 1e-1 for point in points)
    assert {point["b"] for point in points} == {1, 2, 3} and {point["c"] for point in points} == {"x", "y"}
    assert 60 < sum(point["a"] < 10**-2.5 for point in points) < 140  # half of them below the middle decade
    assert len(drawn(sampler(Uniform, "b=1..3", "c=x,y"))) == 6
