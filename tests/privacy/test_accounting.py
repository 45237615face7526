"""The account is that of dp-accounting to the last digit, exact for Gaussian noise, and grows as it must.

Figures of dp_accounting.json are that library's own; against_dp_accounting.py writes them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.privacy.accounting import (
    EXACT,
    RDP,
    Gaussian,
    calibrated,
    epsilon,
    epsilons,
    exact_delta,
    exact_epsilon,
    mu,
    rdp,
)

GOLDEN = json.loads(Path(__file__).with_name("dp_accounting.json").read_text(encoding="utf-8"))["answers"]
SIGMAS = st.floats(0.3, 500)
SENSITIVITIES = st.sampled_from([1.0, math.sqrt(2)])
ANSWERS = st.lists(st.builds(Gaussian, SENSITIVITIES, SIGMAS, st.integers(0, 3000)), max_size=6)
DELTAS = st.sampled_from([1e-3, 1e-5, 1e-9])


def of(row):
    return [Gaussian(sensitivity, sigma, int(count)) for sensitivity, sigma, count in row["answers"]]


def test_fifty_answers_cost_what_the_library_says():
    assert epsilon(rdp([Gaussian(1.0, 2.0, 50)]), 1e-5) == 22.019852327713252


def test_renyi_is_the_librarys_to_the_last_digit():
    assert len(GOLDEN) == 96
    assert [epsilon(rdp(of(row)), row["delta"]) for row in GOLDEN] == [row["rdp"] for row in GOLDEN]


def test_the_exact_epsilon_is_what_the_librarys_loss_distributions_approach_from_above():
    known = [row for row in GOLDEN if "pld" in row]
    assert len(known) == 26
    for row in known:
        ours = exact_epsilon(mu(of(row)), row["delta"])
        assert ours <= row["pld"] <= ours + 2e-7


@settings(max_examples=50, deadline=None)
@given(ANSWERS, DELTAS, st.randoms())
def test_the_order_of_answers_changes_no_bit(answers, delta, random):
    before = epsilons(answers, delta)
    random.shuffle(answers)
    assert epsilons(answers, delta) == before
    halves = [Gaussian(one.sensitivity, one.sigma, part) for one in answers for part in (one.count, 0)]
    assert epsilons(halves, delta) == before


@settings(max_examples=50, deadline=None)
@given(SENSITIVITIES, SIGMAS, st.integers(0, 3000), st.integers(0, 50), st.floats(1, 3), DELTAS)
def test_epsilon_grows_with_the_count_and_falls_with_sigma(sensitivity, sigma, count, more, factor, delta):
    now = epsilons([Gaussian(sensitivity, sigma, count)], delta)
    later = epsilons([Gaussian(sensitivity, sigma, count + more)], delta)
    wider = epsilons([Gaussian(sensitivity, sigma * factor, count)], delta)
    for by in (RDP, EXACT):
        slack = 1e-9 * now[by] if by == EXACT else 0.0  # found by a search
        assert later[by] >= now[by] - slack and wider[by] <= now[by] + slack
    assert now[EXACT] <= now[RDP] * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(ANSWERS, ANSWERS, DELTAS)
def test_two_parts_cost_no_more_than_their_sum_and_no_less_than_either(one, two, delta):
    whole, first, second = (np.array(rdp(part)) for part in (one + two, one, two))
    assert np.allclose(whole, first + second, rtol=1e-12, atol=0)
    assert epsilon(list(whole), delta) >= max(epsilon(list(first), delta), epsilon(list(second), delta))


@pytest.mark.parametrize("found", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("eps", [0.0, 0.5, 3.0])
def test_the_exact_delta_is_the_largest_gain_of_any_test(found, eps):
    """Of N(0, 1) against N(mu, 1): the integral of what p exceeds exp(eps) q by."""
    x = np.linspace(-30, 40, 200_001)
    p, q = (np.exp(-((x - center) ** 2) / 2) / math.sqrt(2 * math.pi) for center in (found, 0.0))
    gain = np.maximum(p - math.exp(eps) * q, 0).sum() * (x[1] - x[0])
    assert exact_delta(found, eps) == pytest.approx(gain, abs=1e-6, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0.1, 1.0, 4.0, 8.0, 30.0]), DELTAS, st.integers(1, 5000), SENSITIVITIES)
def test_calibrated_noise_keeps_to_the_budget_and_hardly_less_would_not(eps, delta, count, sensitivity):
    for by in (RDP, EXACT):
        sigma = calibrated(eps, delta, count, sensitivity, by)
        assert epsilons([Gaussian(sensitivity, sigma, count)], delta)[by] <= eps
        assert epsilons([Gaussian(sensitivity, sigma * (1 - 1e-6), count)], delta)[by] > eps


def test_nothing_costs_nothing():
    assert epsilons([], 1e-5) == epsilons([Gaussian(1.0, 1.0, 0)], 0.0) == {RDP: 0.0, EXACT: 0.0}
    assert epsilons([Gaussian(1.0, 1.0)], 0.0) == {RDP: math.inf, EXACT: math.inf}


@pytest.mark.parametrize("sigma", [0, 0.0, -1.0, math.nan, math.inf, True, "2"])
def test_noise_that_is_none_is_refused(sigma):
    with pytest.raises(MeshError, match=r"sigma: is .*\n.*a number above 0"):
        Gaussian(1.0, sigma)


@pytest.mark.parametrize(("delta", "eps"), [(1e-5, 0), (0, 1.0), (1.0, 1.0), (1e-5, math.inf), (1e-5, math.nan)])
def test_no_noise_is_enough_for_no_budget(delta, eps):
    with pytest.raises(MeshError, match="budget: is"):
        calibrated(eps, delta, 1, 1.0)
    for wrong in (-1e-5, 1.0, math.nan):
        with pytest.raises(MeshError, match="delta: is"):
            epsilons([Gaussian(1.0, 1.0)], wrong)
