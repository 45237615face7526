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
    ORDERS,
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
from kdmesh.privacy.sampled import divergences

GOLDEN = json.loads(Path(__file__).with_name("dp_accounting.json").read_text(encoding="utf-8"))["answers"]
SIGMAS = st.floats(0.3, 500)
SENSITIVITIES = st.sampled_from([1.0, math.sqrt(2)])
ANSWERS = st.lists(st.builds(Gaussian, SENSITIVITIES, SIGMAS, st.integers(0, 3000)), max_size=6)
DELTAS = st.sampled_from([1e-3, 1e-5, 1e-9])


def of(row):
    return [Gaussian(one, sigma, int(count), *rate) for one, sigma, count, *rate in row["answers"]]


def drawn(row):
    """Whether samples take part by chance in some of its answers."""
    return any(len(one) == 4 for one in row["answers"])


def test_fifty_answers_cost_what_the_library_says():
    assert epsilon(rdp([Gaussian(1.0, 2.0, 50)]), 1e-5) == 22.019852327713252


def test_renyi_is_the_librarys_to_the_last_digit():
    rows = [row for row in GOLDEN if not drawn(row)]
    assert len(rows) == 96
    assert [epsilon(rdp(of(row)), row["delta"]) for row in rows] == [row["rdp"] for row in rows]


def test_steps_of_dp_sgd_cost_what_the_library_says():
    """Of whole orders its figures are ours; of others it has an upper bound, which is at most by half too large."""
    rows = [row for row in GOLDEN if drawn(row)]
    assert len(rows) == 15 and sum("curve" in row for row in rows) == 5
    assert epsilon(rdp([Gaussian(1.0, 1.0, 1000, 0.01)]), 1e-5) == pytest.approx(2.10137, abs=5e-6)
    for row in rows:
        ours = epsilon(rdp(of(row)), row["delta"])
        assert row.get("pld", 0) <= ours <= row["rdp"] * (1 + 1e-12) and ours == pytest.approx(row["rdp"], rel=0.01)
        for order, one, other in zip(ORDERS, rdp(of(row)), row.get("curve", rdp(of(row))), strict=True):
            if other is not None:
                assert one <= other * (1 + 1e-11) and (order != int(order) or one == pytest.approx(other, rel=1e-12))


def test_the_divergences_are_those_of_opacus():
    from opacus.accountants.analysis.rdp import compute_rdp

    for rate, sigma in ((0.01, 1.0), (0.2, 0.7), (0.5, 3.0)):
        theirs = compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=list(ORDERS))
        assert divergences(rate, sigma, ORDERS) == pytest.approx(list(theirs), rel=2e-8)


@pytest.mark.parametrize("rate", [0.01, 0.4, 0.9])
@pytest.mark.parametrize("sigma", [0.7, 1.0, 4.0])
def test_a_step_of_dp_sgd_costs_what_its_definition_says(rate, sigma):
    """The moment by a sum over a fine grid, of a mixture of N(0, s^2) and N(1, s^2) against N(0, s^2), both ways."""
    z = np.linspace(-30 * sigma, 30 * sigma + 20, 400_001)
    log_p = -(z**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi))
    log_ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * z - 1) / (2 * sigma**2))
    orders = (1.5, 2.0, 3.7, 8.0)
    ours = divergences(rate, sigma, orders)
    for order, found in zip(orders, ours, strict=True):
        there, back = (
            math.log1p(float((np.exp(log_p) * np.expm1(power * log_ratio)).sum() * (z[1] - z[0]))) / (order - 1)
            for power in (order, 1 - order)
        )
        assert found == pytest.approx(there, rel=1e-6) and back <= there * (1 + 1e-6)
        assert 0 < found < order / (2 * sigma**2) + 1e-12


def test_nothing_exact_is_said_of_samples_that_are_drawn():
    known = [Gaussian(1.0, 1.0, 1000, 0.01)]
    assert set(epsilons(known, 1e-5)) == {RDP} and set(epsilons([Gaussian(1.0, 1.0)], 1e-5)) == {RDP, EXACT}
    for rate in (0.0, 1.1, -0.1, math.nan, True):
        with pytest.raises(MeshError, match="rate: is"):
            Gaussian(1.0, 1.0, 1, rate)


@pytest.mark.parametrize("eps", [1.0, 3.0, 8.0])
def test_noise_for_so_many_steps_keeps_to_the_budget_and_hardly_less_would_not(eps):
    sigma = calibrated(eps, 1e-5, 300, 1.0, rate=0.05)
    spent = [epsilons([Gaussian(1.0, one, 300, 0.05)], 1e-5)[RDP] for one in (sigma, sigma * (1 - 1e-5))]
    assert spent[0] <= eps < spent[1]


def test_the_exact_epsilon_is_what_the_librarys_loss_distributions_approach_from_above():
    known = [row for row in GOLDEN if "pld" in row and not drawn(row)]
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
