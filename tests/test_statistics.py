from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdmesh.statistics import detectable, holm, over_paired_samples, over_samples, paired, power, verdicts
from kdmesh.tasks import Figure

LOSS = Figure("loss", higher=False)


def verdict(pair, *how, **more):
    """Of one difference that is asked for alone."""
    return verdicts([pair], *how, **more)[0]


def draws(seed: int, n: int = 20, shift: float = 0.0, sd: float = 0.01) -> tuple[list[float], list[float]]:
    """Accuracies on 1,000 samples of two arms that share what a seed gives, and differ by ``shift``."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0.9, 0.02, n)
    arms = common + rng.normal(0, sd / math.sqrt(2), (2, n))
    return [round(x + shift, 3) for x in arms[0]], [round(x, 3) for x in arms[1]]


def test_the_p_value_and_the_interval_are_those_of_scipy():
    a, b = draws(3, shift=0.004)
    pair, known = paired(a, b), stats.ttest_rel(a, b)
    low, high = known.confidence_interval(0.95)
    assert pair["p"] == pytest.approx(known.pvalue, rel=1e-9)
    assert (pair["mean"] - pair["half_width"], pair["mean"] + pair["half_width"]) == pytest.approx((low, high))


def test_holm_is_the_published_procedure():
    # Holm (1979): p(k) times the number of hypotheses left, never below the one before, at most 1.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(ps):
    adjusted = holm(ps)
    assert all(after >= before for before, after in zip(ps, adjusted, strict=True))
    order = np.argsort(ps, kind="stable")
    assert [adjusted[at] for at in order] == sorted(adjusted)


def test_two_one_sided_tests_are_those_of_scipy():
    a, b = draws(5)
    differences = np.subtract(a, b)
    below = stats.ttest_1samp(differences, 0.01, alternative="less").pvalue
    above = stats.ttest_1samp(differences, -0.01, alternative="greater").pvalue
    assert verdict(paired(a, b), equal=0.01)["p_equal"] == pytest.approx(max(below, above))


@pytest.mark.parametrize(
    ("a", "b", "metric", "equal", "word"),
    [
        ([0.9, 0.91, 0.92], [0.8, 0.81, 0.83], None, None, "better"),
        ([0.9, 0.91, 0.92], [0.8, 0.81, 0.83], LOSS, None, "worse"),
        ([0.9, 0.8, 0.7], [0.8, 0.9, 0.7], None, None, "no difference shown"),
        ([0.9, 0.8, 0.7], [0.8, 0.9, 0.7], None, 0.05, "no difference shown"),
        ([0.9, 0.8, 0.701], [0.9, 0.8, 0.7], None, 0.05, "equal"),
        ([0.901, 0.801, 0.702], [0.9, 0.8, 0.7], None, 0.05, "equal"),
        ([0.9, 0.8], [0.9, 0.8], None, None, "equal in every pair"),
        ([0.9, 0.8], [0.9, 0.8], None, 0.01, "equal in every pair"),
        ([0.9, 0.8] * 3, [0.9, 0.8] * 3, None, 0.01, "equal"),
        ([0.75, 0.5], [0.5, 0.25], None, 0.125, "no difference shown"),  # alike by chance in 1 of 2
        ([0.75, 0.5] * 3, [0.5, 0.25] * 3, None, 0.125, "better"),
        ([0.9, 0.8], [0.8, 0.7], None, None, "no difference shown"),  # the same, and the differences differ by rounding
        ([0.9, 0.8], [0.899, 0.799], None, 0.01, "no difference shown"),
        ([0.9], [0.8], None, 0.01, None),
    ],
)
def test_the_word_for_what_is_shown(a, b, metric, equal, word):
    assert verdict(paired(a, b, *[metric] * bool(metric)), *[metric] * bool(metric), equal=equal)["verdict"] == word


def test_one_trial_shows_nothing():
    pair = paired([0.9], [0.8])
    assert [pair[key] for key in ("half_width", "sd", "p", "effect", "detectable")] == [None] * 5
    assert verdict(pair)["low"] is None


def test_several_comparisons_make_each_harder_to_show():
    a, b = draws(0, shift=0.0075)
    alone = verdict(paired(a, b))
    assert alone["verdict"] == "better" and alone["p"] > 0.05 / 20
    beside = [paired(*draws(seed)) for seed in range(100, 119)]
    assert verdicts([paired(a, b), *beside])[0]["verdict"] == "no difference shown"


def test_arms_that_differ_in_their_seed_only_are_rarely_called_different():
    words = [verdict(paired(*draws(seed)))["verdict"] for seed in range(200)]
    assert set(words) <= {"better", "worse", "no difference shown"}
    assert 200 - words.count("no difference shown") <= 16  # of 200; 10 are to be expected


def test_arms_that_are_equal_are_found_to_be_and_different_ones_rarely_are():
    same = [verdict(paired(*draws(seed)), equal=0.01)["verdict"] for seed in range(200)]
    apart = [verdict(paired(*draws(seed, shift=0.01)), equal=0.01)["verdict"] for seed in range(200)]
    assert same.count("equal") >= 180
    assert apart.count("equal") <= 16  # a true difference of just the margin


@pytest.mark.parametrize("n", [5, 10, 20])
def test_a_planted_point_is_found_as_often_as_the_power_says(n):
    expected = power(n, 0.01, 0.012)
    found = sum(verdict(paired(*draws(seed, n, 0.01, 0.012)))["verdict"] == "better" for seed in range(400))
    spread = math.sqrt(expected * (1 - expected) / 400)
    assert abs(found / 400 - expected) < 4 * spread


def test_splits_of_the_same_samples_are_corrected_for_what_they_share():
    a, b = draws(3, shift=0.004)
    plain, shared = paired(a, b), paired(a, b, shared=0.25)
    wider = math.sqrt(1 + 20 * 0.25)  # Nadeau and Bengio (2003): 1 / n + test / train, in place of 1 / n
    assert shared["half_width"] == pytest.approx(plain["half_width"] * wider)
    assert shared["detectable"] == pytest.approx(plain["detectable"] * wider)
    t = plain["mean"] / (plain["sd"] * math.sqrt(1 / 20 + 0.25))
    assert shared["p"] == pytest.approx(2 * stats.t.sf(abs(t), 19))
    near = (0.01 - abs(plain["mean"])) / (plain["sd"] * math.sqrt(1 / 20 + 0.25))
    assert verdict(shared, equal=0.01)["p_equal"] == pytest.approx(stats.t.sf(near, 19))


def test_what_is_called_detectable_is_found_in_eight_of_ten():
    for n in (2, 3, 5, 20, 200):
        assert power(n, detectable(n, 0.03), 0.03) == pytest.approx(0.8, abs=1e-6)
    assert power(20, 0.0, 1.0) == pytest.approx(0.05, rel=1e-4)
    assert (power(1, 1.0, 1.0), power(5, 1.0, 0.0), power(5, 1.0, 1e-9), detectable(5, 0.0)) == (0, 1, 1, 0)


def test_the_power_is_that_of_the_noncentral_t_distribution():
    n, shift = 10, 0.7
    quantile = stats.t.ppf(0.975, n - 1)
    tails = stats.nct.sf(quantile, n - 1, shift * math.sqrt(n)) + stats.nct.cdf(-quantile, n - 1, shift * math.sqrt(n))
    assert power(n, shift, 1.0) == pytest.approx(tails, rel=1e-4)


def test_the_effect_is_the_mean_in_standard_deviations_corrected_for_few_trials():
    pair = paired([1.0, 3.0, 5.0], [0.0, 1.0, 2.0])  # differences 1, 2, 3
    assert pair["effect"] == pytest.approx(2.0 * (1 - 3 / 7))
    assert paired([1.0, 3.0], [0.0, 1.0])["effect"] == pytest.approx(1.5 / math.sqrt(0.5))


def test_the_interval_over_samples_covers_the_true_difference():
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        right = rng.random(200) < 0.8
        a = (right ^ (rng.random((3, 200)) < 0.05)).astype(float)
        b = (right ^ (rng.random((3, 200)) < 0.10)).astype(float)
        _, low, high = over_samples(a, b)
        covered += low <= 0.05 * 0.6 <= high  # a flip of a share f loses 0.8 f and gains 0.2 f
    assert covered >= 33  # of 40, for 95%: fewer in 1 of 1,000 repeats


def test_the_interval_over_samples_is_repeatable_and_refuses_what_is_not_paired():
    a, b = np.eye(2, 50), np.zeros((2, 50))
    assert over_samples(a, b) == over_samples(a, b)
    assert over_samples(b, b) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="not paired"):
        over_samples(a, b[:, :4])


def test_of_paired_trials_only_samples_that_count_for_both_are_drawn():
    nan = math.nan
    a, b = np.array([1.0, 0.0, 1.0, nan]), np.array([0.0, 0.0, 1.0, nan])
    alone, other = np.array([1.0, nan, 1.0, 1.0]), np.array([1.0, 1.0, 1.0])
    found = over_paired_samples([(a, b), (a, alone), (a, None), (a, other), (other, other), (b, a)])
    assert found == {**found, "samples": 3, "trials": 2} and found["mean"] == 0
    assert over_paired_samples([(a, b)])["mean"] == pytest.approx(1 / 3)
    assert over_paired_samples([(a, alone), (None, b), (a * nan, a * nan)]) is None


def test_statistics_wait_with_scipy_until_they_are_asked():
    probe = "import sys, kdmesh.statistics; print({'torch', 'scipy', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "set()\n"
