"""What mechanisms release, what they refuse, and that no neighbour moves their values by more than they say."""

from __future__ import annotations

import inspect
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import kdmesh.privacy.mechanisms
from kdmesh.errors import MeshError
from kdmesh.privacy.accounting import rdp
from kdmesh.privacy.gaussian import Noise
from kdmesh.privacy.keys import Secret
from kdmesh.privacy.mechanisms._base import Mechanism
from kdmesh.privacy.mechanisms.agreement import Agreement
from kdmesh.privacy.mechanisms.confident_gnmax import ConfidentGNMax
from kdmesh.privacy.mechanisms.gaussian_probabilities import GaussianProbabilities
from kdmesh.privacy.mechanisms.gnmax import GNMax
from kdmesh.privacy.mechanisms.votes import histogram
from kdmesh.privacy.sensitivity import ADJACENCIES, UNITS

SECRET = Secret(b"k" * 32)
ROOT2 = math.sqrt(2)


def drawn(mechanism, values, name="q"):
    queries = [(f"{name}{n}", "t") for n in range(len(values))]
    return SECRET.noise(mechanism.sigma, mechanism.size(values), "mesh", mechanism.purpose, queries)


def of(labels, classes=4):
    return histogram(np.array(labels)[:, None], classes)


@pytest.mark.parametrize(("unit", "adjacency"), list(product(UNITS, ADJACENCIES)))
def test_no_neighbour_of_votes_moves_counts_by_more_than_is_said(unit, adjacency):
    """All votes of three teachers for three classes or none, and all that one teacher may do instead."""
    gnmax, agreement = GNMax(1.0, unit, adjacency), Agreement(2, 1.0, unit, adjacency)
    may = (-1, 0, 1, 2)
    moved, largest = set(), set()
    for labels in product(may, repeat=3):
        for teacher, other in product(range(3), may):
            there, gone = labels[teacher] != -1, other == -1
            if unit == "party" and adjacency != "replace" and not (there and gone):
                continue  # here what differs is one party's vote, there or not
            after = [other if n == teacher else label for n, label in enumerate(labels)]
            one, two = (mechanism_steps(gnmax, of(each, 3)) for each in (labels, after))
            moved.add(float(np.linalg.norm(one - two)))
            one, two = (mechanism_steps(agreement, of(each, 3)) for each in (labels, after))
            largest.add(float(np.linalg.norm(one - two)))
    assert max(moved) == gnmax.sensitivity == (1.0 if unit == "party" and adjacency != "replace" else ROOT2)
    assert max(largest) == agreement.sensitivity == 1.0


def mechanism_steps(mechanism, values):
    return mechanism.steps(values) / 2.0**mechanism.digits


ROWS = arrays.arrays(np.float64, (1, 5), elements=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 1e-9])))


@settings(max_examples=100)
@given(ROWS, ROWS, st.sampled_from([np.float64, np.float32, np.float16]), st.sampled_from([0.02, 1.0, 70000.0]))
def test_no_two_rows_are_further_apart_than_is_said(one, two, kind, sigma):
    mechanism = GaussianProbabilities(sigma, "sample", "replace")
    one, two = ((row / row.sum()).astype(kind) if row.sum() > 1e-3 else np.eye(5, dtype=kind)[:1] for row in (one, two))
    steps = [mechanism.steps(row) for row in (one, two)]
    unit = 1 << mechanism.digits
    for made, row in zip(steps, (one, two), strict=True):
        assert made.min() >= 0 and made.sum() <= unit
        assert np.abs(made / unit - row.astype(np.float64)).max() <= 1 / unit + 2e-3
    assert int(((steps[0] - steps[1]) ** 2).sum()) <= 2 * unit * unit
    assert mechanism.sensitivity == ROOT2


def test_a_sum_that_rounding_made_too_large_is_brought_back(monkeypatch):
    """Of a hundred thousand classes, on the finest grid, errors of floating point could add up to a step."""
    mechanism, unit = GaussianProbabilities(1.0, "sample", "replace"), 1 << 16
    monkeypatch.setattr(np, "floor", np.ceil)
    steps = mechanism.steps(np.array([[0.7, *[0.3 / 7] * 7]]))
    assert steps.min() >= 0 and steps.sum() == unit and mechanism.digits == 16


def test_opposite_rows_are_that_far_apart():
    mechanism = GaussianProbabilities(1.0, "sample", "add_remove")
    one, two = mechanism_steps(mechanism, np.eye(3))[:2]
    assert np.linalg.norm(one - two) == mechanism.sensitivity
    with pytest.raises(MeshError, match="unit: party, adjacency: add_remove is not protected here"):
        GaussianProbabilities(1.0, "party", "add_remove")


def test_costs_are_those_of_the_papers():
    orders = (2.0, 8.0)
    assert rdp([GNMax(40.0, "sample", "replace").cost()], orders) == pytest.approx([a / 40**2 for a in orders])
    assert rdp([GNMax(40.0, "party", "add_remove").cost()], orders) == pytest.approx([a / (2 * 40**2) for a in orders])
    assert rdp([Agreement(9, 150.0, "sample", "replace").cost(3)], orders) == pytest.approx(
        [3 * a / (2 * 150**2) for a in orders]
    )
    rows = GaussianProbabilities(2.0, "sample", "replace")
    assert rdp([rows.cost(5)], orders) == pytest.approx([5 * a / 2.0**2 for a in orders])


def test_the_noisy_argmax_is_that_of_counts_with_noise():
    mechanism = GNMax(30.0, "sample", "replace")
    votes = np.random.default_rng(0).multinomial(250, [0.4, 0.3, 0.2, 0.1], size=200)
    made = drawn(mechanism, votes)
    noisy = votes + made.steps / 2.0**mechanism.digits
    answers = mechanism.release(votes, made)
    assert (answers == noisy.argmax(1)).all() and (answers != votes.argmax(1)).any()


def test_confident_votes_answer_where_they_agree_and_nowhere_else():
    mechanism = ConfidentGNMax(200, 20.0, 5.0, "sample", "replace")
    votes = np.array([[240, 5, 5], [5, 240, 5], [90, 80, 80], [84, 83, 83]])
    asked = []

    def draw(part, rows):
        asked.append((part.name, rows.tolist()))
        return drawn(part, votes[rows], part.name)

    assert mechanism.answer(votes, draw).tolist() == [0, 1, -1, -1]
    assert asked == [("agreement", [0, 1, 2, 3]), ("gnmax", [0, 1])]
    first, second = (
        drawn(part, votes[rows], part.name)
        for part, rows in zip((mechanism.agreement, mechanism.gnmax), ([0, 1, 2, 3], [0, 1]), strict=True)
    )
    assert mechanism.release(votes, first, second).tolist() == [0, 1, -1, -1]
    asked.clear()
    assert mechanism.answer(votes[2:], draw).tolist() == [-1, -1] and len(asked) == 1


def test_a_threshold_between_votes_is_met_by_whole_ones():
    made = Noise(np.zeros((3, 1), dtype=np.int64), 1.0)
    votes = np.array([[9, 0], [10, 0], [11, 0]])
    assert Agreement(9.5, 1.0, "sample", "replace").release(votes, made).tolist() == [False, True, True]
    assert Agreement(10, 1.0, "sample", "replace").release(votes, made).tolist() == [False, True, True]


def test_probabilities_are_released_as_multiples_of_the_grid():
    mechanism = GaussianProbabilities(0.5, "sample", "replace")
    rows = np.random.default_rng(0).dirichlet([1] * 10, 3000)
    answers = mechanism.release(rows, drawn(mechanism, rows))
    steps = answers * 2**mechanism.digits
    assert (steps == np.round(steps)).all()
    assert (answers - rows).std() == pytest.approx(0.5, rel=0.02) and abs((answers - rows).mean()) < 0.01


@pytest.mark.parametrize(
    "row",
    [[0.5, 0.6], [0.2, 0.2], [-0.1, 1.1], [math.nan, 1.0], [math.inf, 0.0], [3.2, -1.0], [0.0, 0.0], [1], ["a", "b"]],
)
def test_what_is_no_distribution_is_refused(row):
    mechanism = GaussianProbabilities(1.0, "sample", "replace")
    with pytest.raises(MeshError, match="gaussian_probabilities: "):
        mechanism.steps(np.array([row]))


@pytest.mark.parametrize("row", [[0.5, 0.5], [-1, 3], [math.nan, 1.0], [2**21, 0], [5], [True, False]])
def test_what_are_no_votes_is_refused(row):
    for mechanism in (GNMax(1.0, "sample", "replace"), Agreement(1, 1.0, "sample", "replace")):
        with pytest.raises(MeshError, match=f"{mechanism.name}: "):
            mechanism.steps(np.array([row]))


def test_each_teacher_has_one_vote():
    assert of([0, 0, 2, -1]).tolist() == [[2, 0, 1, 0]]
    for labels in ([4], [-2]):
        with pytest.raises(MeshError, match="votes: labels from"):
            of(labels)
    with pytest.raises(MeshError, match="votes: labels of shape"):
        histogram(np.array([[0.5]]), 4)


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, math.inf, 1e-9])
@pytest.mark.parametrize(
    "make",
    [
        lambda sigma: GNMax(sigma, "sample", "replace"),
        lambda sigma: Agreement(1, sigma, "sample", "replace"),
        lambda sigma: ConfidentGNMax(1, 1.0, sigma, "sample", "replace"),
        lambda sigma: ConfidentGNMax(1, sigma, 1.0, "sample", "replace"),
        lambda sigma: GaussianProbabilities(sigma, "sample", "replace"),
    ],
)
def test_no_mechanism_is_without_noise(make, sigma):
    with pytest.raises(MeshError, match="sigma: is"):
        make(sigma)


def test_noise_that_was_drawn_for_something_else_is_refused():
    mechanism, votes = GNMax(2.0, "sample", "replace"), np.array([[3, 1], [2, 2]])
    other = drawn(GNMax(2.5, "sample", "replace"), votes)
    for wrong in (other, drawn(mechanism, votes[:1]), drawn(Agreement(1, 2.0, "sample", "replace"), votes)):
        with pytest.raises(MeshError, match="gnmax: noise of sigma"):
            mechanism.release(votes, wrong)


def test_there_is_a_mechanism_for_votes_probabilities_and_gradients_and_none_else():
    """Of logits nothing is released: no file, class or name in this folder says that anything is."""
    folder = Path(inspect.getfile(kdmesh.privacy.mechanisms)).parent
    assert {path.stem for path in folder.glob("*.py")} == {
        "__init__", "_base", "votes", "gnmax", "agreement", "confident_gnmax", "gaussian_probabilities", "dp_sgd",
    }  # fmt: skip
    assert {one.name for one in Mechanism.__subclasses__()} == {"gnmax", "agreement", "gaussian_probabilities"}
    logits = np.random.default_rng(0).normal(0, 3, (1, 5))
    for mechanism in (GNMax(1.0, "sample", "replace"), GaussianProbabilities(1.0, "sample", "replace")):
        with pytest.raises(MeshError):
            mechanism.steps(logits)
