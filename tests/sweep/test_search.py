from __future__ import annotations

import sys

import pytest

from kdmesh.builtin.samplers.grid import Grid
from kdmesh.errors import MeshError, RunFailed
from kdmesh.offers import SamplerOffer
from kdmesh.plugins import registry
from kdmesh.samplers import Sampler
from kdmesh.statistics import ACCURACY
from kdmesh.sweep.axes import axes
from kdmesh.sweep.budget import rungs
from kdmesh.sweep.design import Sweep
from kdmesh.sweep.search import Search, sampler_of
from kdmesh.sweep.start import _refuse_number
from kdmesh.tasks import Figure


def search(over, points, kind=Grid, halving=None, arm="mesh", metric=ACCURACY, **more):
    space = axes(over)
    sweep = Sweep(
        name="x", given={}, anchor="", text="", beside=[], agent="s", axes=space, points=points, arms={arm: []}, **more
    )
    made = kind(axes=space, count=points, seed=0, higher=metric.higher, folder=None)
    return Search(arm, sweep, halving or [(points, 1)], made, metric)


def run(made, figure):
    """Every turn's trials."""
    turns = []
    while trials := made.wanted():
        turns.append(trials)
        made.take(figure)
    return turns


def test_the_best_by_validation_is_chosen_and_the_first_of_equals():
    made = search(["a=1,2,3,4"], 4)
    run(made, lambda trial: {1: 0.1, 2: 0.9, 3: 0.9, 4: 0.2}[trial.point["a"]])
    assert made.chosen.trials[0].point == {"a": 2}
    made = search(["a=1,2,3"], 3, metric=Figure("loss", higher=False))
    run(made, lambda trial: float(trial.point["a"]))
    assert made.chosen.trials[0].point == {"a": 1}


def test_a_point_with_a_trial_without_a_figure_is_not_chosen():
    made = search(["a=1,2"], 2, search_seeds=2)
    run(made, lambda trial: None if trial.point["a"] == 1 and trial.seed == 1001 else 1.0 / trial.point["a"])
    assert made.chosen.trials[0].point == {"a": 2}
    assert [one.mean for one in made.tried.values()] == [None, 0.5]
    made = search(["a=1,2"], 2)
    run(made, lambda trial: None)
    assert made.chosen is None


def test_an_arm_with_fewer_points_has_as_many_trials_with_further_seeds():
    (wide,) = run(search(["a=1,2", "b=1,2,3"], 6, search_seeds=2), lambda trial: 1.0)
    (narrow,) = run(search(["a=1,2"], 6, search_seeds=2), lambda trial: 1.0)
    assert len(wide) == len(narrow) == 12 == len(set(narrow))
    assert sorted({trial.seed for trial in wide}) == [1000, 1001]
    assert sorted(trial.seed for trial in narrow if trial.point["a"] == 2) == list(range(1000, 1006))
    fresh = Sweep(name="x", given={}, anchor="", text="", beside=[], agent="s", axes=axes(["a=1,2"]), points=2, arms={})
    assert not {*fresh.fresh()} & {trial.seed for trial in narrow}


def test_rungs_keep_the_best_and_give_them_more():
    assert rungs(9, 3, 100) == [(9, 9), (3, 3), (1, 1)]
    assert rungs(9, 3, 5) == [(9, 3), (3, 1)] and rungs(2, 3, 100) == [(2, 1)]
    made = search(["a=1..9"], 9, halving=rungs(9, 3, 9))
    turns = run(made, lambda trial: -abs(trial.point["a"] - 7) / trial.part)
    assert [[(trial.point["a"], trial.part) for trial in trials] for trials in turns[1:]] == [
        [(7, 3), (6, 3), (8, 3)],
        [(7, 1)],
    ]
    assert made.chosen.trials[0].point == {"a": 7} and made.chosen.part == 1
    narrow = run(search(["a=1..2"], 9, halving=rungs(9, 3, 9)), lambda trial: float(trial.point["a"]))
    assert [len(trials) for trials in narrow] == [len(trials) for trials in turns] == [9, 3, 1]


class Climbing(Sampler):
    """One more than the best that was told."""

    def __init__(self, **about):
        super().__init__(**about)
        self.told = [(0.0, 1)]

    def ask(self):
        return {"a": min(max(self.told)[1] + 1, 9)}

    def tell(self, point, value):
        self.told.append((-1.0 if value is None else value, point["a"]))


def test_an_adaptive_sampler_is_told_between_turns():
    made = search(["a=1..9"], 5, Climbing, turn=2)
    turns = run(made, lambda trial: float(trial.point["a"]))
    assert [[trial.point["a"] for trial in trials] for trials in turns] == [[2, 2], [3, 3], [4]]
    assert [trial.seed for trial in turns[0]] == [1000, 1001]


def test_a_sampler_that_proposes_no_point_of_the_space_is_named():
    for answer in (None, {"b": 1}):
        made = search(["a=1,2"], 2)
        made.sampler.ask = lambda answer=answer: answer
        with pytest.raises(RunFailed, match="--sampler grid"):
            made.wanted()


def test_a_sampler_that_raises_as_it_is_told_or_made_is_named(monkeypatch):
    made = search(["a=1,2"], 2)
    made.sampler.tell = lambda point, value: 1 / 0
    with pytest.raises(RunFailed, match=r"sampler 'grid' of kdmesh failed as it was told of .*: ZeroDivisionError"):
        run(made, lambda trial: 1.0)
    monkeypatch.setattr(Grid, "__init__", lambda self, **given: sys.exit(0))
    with pytest.raises(RunFailed, match=r"--sampler grid: the sampler 'grid' of kdmesh failed to be made: SystemExit"):
        sampler_of("grid", {}, axes=[], count=2, seed=0, higher=True, folder=None)


def test_a_sampler_with_too_few_points_is_named(monkeypatch):
    offer = SamplerOffer("thrifty", "nowhere:Thrifty")
    monkeypatch.setitem(registry()._offers["samplers"], "thrifty", offer)
    with pytest.raises(MeshError, match=r"the sampler 'thrifty' proposes 1 different points, and 2 are asked for"):
        _refuse_number("thrifty", 1, 2)
