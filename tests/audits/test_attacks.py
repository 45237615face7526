"""The statistics of attacks, against closed forms, simulations and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from kdmesh.audits.exposure import exposure, mean_of
from kdmesh.audits.exposure import p_value as exposed_by_chance
from kdmesh.audits.membership import confidences, exact_interval, lira_scores, loss_scores, measured
from kdmesh.audits.one_run import epsilon, p_value, power
from kdmesh.audits.spans import Spans, words
from kdmesh.errors import MeshError

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


@given(SCORES, SCORES)
def test_the_area_is_the_share_of_pairs_in_order(members: list[float], others: list[float]) -> None:
    found = measured(np.array(members), np.array(others), 0.1)
    pairs = [(one > other) + (one == other) / 2 for one in members for other in others]
    assert found.auc == pytest.approx(sum(pairs) / len(pairs))
    low, high = found.auc_interval
    assert 0 <= low <= found.auc <= high <= 1
    assert found.wrong <= 0.1 * len(others) + 1e-9
    better = [one for one in sorted({*members, *others, -9.0}) if sum(o > one for o in others) <= 0.1 * len(others)]
    assert found.found == max(sum(member > one for member in members) for one in better), "no threshold finds more"
    assert found.share == found.found / len(members) and found.least == 1 / len(others)


def test_the_area_of_normal_scores_is_as_known_and_its_interval_covers_it() -> None:
    drawn, covered = np.random.default_rng(0), 0
    truth = float(norm.cdf(1 / math.sqrt(2)))
    for _ in range(200):
        low, high = measured(drawn.normal(1, 1, 80), drawn.normal(0, 1, 120)).auc_interval
        covered += low <= truth <= high
    assert 180 <= covered <= 200


def test_few_samples_told_apart_leave_the_area_uncertain() -> None:
    for size, least in ((3, 0.5), (30, 0.9), (300, 0.98)):
        apart = measured(np.arange(size) + 1000.0, np.arange(float(size)))
        low, high = apart.auc_interval
        assert apart.auc == high == 1.0 and least < low < 1.0
        turned = measured(np.arange(float(size)), np.arange(size) + 1000.0).auc_interval
        assert turned == pytest.approx((0.0, 1 - low))


def test_losses_that_are_equal_do_not_make_exposure_rarer_than_it_is() -> None:
    drawn, below = np.random.default_rng(0), 0
    for _ in range(1000):  # of four texts two or three have the least loss, and the canary is any of them
        losses = np.zeros(4)
        losses[drawn.integers(2, 4) :] = 1.0
        drawn.shuffle(losses)
        below += exposed_by_chance([exposure(float(losses[0]), losses[1:])]) <= 0.4
    assert below == 0, "the least that they can show is 2 in 4"


@given(st.integers(1, 60), st.data())
def test_an_exact_interval_has_its_tails(of: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, of))
    low, high = exact_interval(count, of)
    assert low <= count / of <= high
    if count:
        assert binom.sf(count - 1, of, low) == pytest.approx(0.025)
    if count < of:
        assert binom.cdf(count, of, high) == pytest.approx(0.025)


def test_likelihood_ratios_are_those_of_normal_distributions() -> None:
    own = np.array([2.0, 0.0])
    within = np.array([[1.0, np.nan], [3.0, 1.0], [np.nan, 3.0]])
    without = np.array([[np.nan, 0.0], [0.0, np.nan], [0.0, 0.0]])
    without[1, 0], without[2, 0] = -1.0, 1.0
    found = lira_scores(own, within, without)
    inside, outside = 1.0, math.sqrt((1 + 1 + 0 + 0) / 4)
    expected = [
        norm.logpdf(2, 2, inside) - norm.logpdf(2, 0, outside), norm.logpdf(0, 2, inside) - norm.logpdf(0, 0, outside)
    ]  # fmt: skip
    assert found == pytest.approx(expected)
    with pytest.raises(MeshError, match="without a shadow model"):
        lira_scores(own, within, np.full((2, 2), np.nan))


def test_confidences_are_logits_of_two_classes_and_finite_at_the_ends() -> None:
    logits = np.array([-3.0, 0.0, 2.5])
    right = 1 / (1 + np.exp(-logits))
    assert confidences(np.stack([right, 1 - right], 1), np.zeros(3, int)) == pytest.approx(logits)
    assert np.isfinite(confidences(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))).all()
    assert (loss_scores(np.array([1.0, 2.0])) == [-1.0, -2.0]).all()


@pytest.mark.parametrize("bad", [np.array([]), np.array([np.nan]), np.array([np.inf]), np.zeros((2, 2))])
def test_scores_that_are_none_are_refused(bad: np.ndarray) -> None:
    for members, others in ((bad, np.zeros(3)), (np.zeros(3), bad)):
        with pytest.raises(MeshError, match="finite"):
            measured(members, others)
    with pytest.raises(MeshError, match="rate"):
        measured(np.zeros(3), np.zeros(3), 1.0)


def test_exposure_is_bits_of_rank_and_by_chance_it_is_uniform() -> None:
    others = np.arange(1.0, 1024.0)
    first, last = exposure(0.5, others), exposure(2000.0, others)
    assert first.bits == first.most == 10.0 and first.rank == 1 and last.bits == 0.0
    shared = exposure(1.0, np.array([1.0, 2.0, 3.0]))
    assert (shared.rank, shared.last) == (1.5, 2)
    drawn = np.random.default_rng(0)
    values = []
    for _ in range(400):
        found = [exposure(float(drawn.normal()), drawn.normal(size=999)) for _ in range(5)]
        values.append(exposed_by_chance(found))
    assert 0.02 <= np.mean(np.array(values) < 0.05) <= 0.08
    assert exposed_by_chance([first]) == pytest.approx(1 / 1024)
    with pytest.raises(MeshError):
        exposure(math.nan, others)
    with pytest.raises(MeshError):
        exposed_by_chance([])


def test_one_run_refutes_what_the_binomial_says() -> None:
    assert p_value(10, 10, 10, 0.0, 0.0) == pytest.approx(2**-10)
    found = epsilon(1000, 1000, 1000)
    assert (1 / (1 + math.exp(-found))) ** 1000 == pytest.approx(0.05)
    assert epsilon(100, 100, 50) == 0.0 and power(4) == 0.0 and power(1000) == found
    assert epsilon(1000, 100, 100, 1e-5) < epsilon(1000, 100, 100)


@settings(max_examples=50)
@given(st.integers(1, 60), st.data())
def test_more_right_guesses_refute_more_and_delta_refutes_less(canaries: int, data: st.DataObject) -> None:
    guesses = data.draw(st.integers(1, canaries))
    right = data.draw(st.integers(0, guesses))
    one = epsilon(canaries, guesses, right)
    assert one >= epsilon(canaries, guesses, right, 1e-4) >= 0
    assert right == guesses or epsilon(canaries, guesses, right + 1) >= one
    level = data.draw(st.floats(0.0, 4.0))
    assert p_value(canaries, guesses, right, level, 0.0) <= p_value(canaries, guesses, right, level + 1, 0.0) + 1e-12


def test_an_algorithm_that_answers_by_chance_is_seldom_refuted_at_its_own_epsilon() -> None:
    drawn, wrong = np.random.default_rng(1), 0
    for _ in range(500):  # randomised response at epsilon 1: each guess is right with e / (1 + e)
        right = int(drawn.binomial(200, math.e / (1 + math.e)))
        wrong += epsilon(200, 200, right) > 1.0
    assert wrong <= 40


@pytest.mark.parametrize(("canaries", "guesses", "right"), [(1, 2, 1), (2, 1, 2), (2, 0, 0), (2, 1, -1)])
def test_guesses_that_cannot_be_are_refused(canaries: int, guesses: int, right: int) -> None:
    with pytest.raises(MeshError, match="guesses"):
        p_value(canaries, guesses, right, 1.0, 0.0)


def test_means_of_exposures_have_intervals_within_what_can_be_shown() -> None:
    some = [exposure(one, np.arange(1.0, 16.0)) for one in (0.0, 0.0, 3.5, 20.0)]
    mean, low, high = mean_of(some)
    assert mean == pytest.approx((4 + 4 + 2 + 0) / 4) and 0 <= low < mean < high <= 4
    assert mean_of(some[:2]) == (4.0, 4.0, 4.0) and mean_of(some[:1]) == (4.0, 0.0, 4.0)
    with pytest.raises(MeshError):
        mean_of([])


LETTERS = st.lists(st.sampled_from("abc"), max_size=12).map(" ".join)


@given(st.lists(LETTERS, max_size=4), LETTERS, st.integers(1, 3))
def test_the_longest_span_is_that_of_a_search_through_all(texts: list[str], said: str, least: int) -> None:
    found = Spans(texts, least).longest(said)
    own = words(said)
    parts = [" ".join(own[at : at + size]) for size in range(1, len(own) + 1) for at in range(len(own) - size + 1)]
    known = [len(part.split()) for part in parts if any(f" {part} " in f" {text} " for text in texts)]
    longest = max(known, default=0)
    assert found.words == (longest if longest >= least else 0)
    assert len(found.said.split()) == found.words
    assert (found.text >= 0) == (found.words > 0) and (found.text < 0 or found.said in texts[found.text])


def test_spans_are_of_words_in_any_letters() -> None:
    assert Spans(["The code, of Guest 7, is 42."]).longest("so THE CODE , of guest 8") == (5, 0, "the code , of guest")
    with pytest.raises(MeshError):
        Spans([], 0)
