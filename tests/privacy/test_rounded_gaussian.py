"""Noise is the rounded normal variable that its bits say, to the last unit, and has that distribution."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdmesh.errors import MeshError
from kdmesh.privacy import gaussian
from kdmesh.privacy.gaussian import Bounds, beyond, digits, exactly, noise, rounded

TAIL = 2**63 - 1


def more(number, block):
    return int.from_bytes(hashlib.sha256(f"{number} {block}".encode()).digest()[:8], "big")


def by_mpmath(word, number, scale):
    """The same by another library, at 60 digits: sign, and the nearest whole number to z * scale."""
    with mpmath.workdps(60):
        tail, known = word & TAIL, 63
        for block in (1, 2):
            tail, known = tail << 64 | more(number, block), known + 64
        z = -mpmath.sqrt(2) * mpmath.erfinv(mpmath.mpf(tail) / mpmath.mpf(2) ** known - 1)
        size = int(mpmath.nint(z * scale.numerator / scale.denominator))
    return -size if word >> 63 else size


@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(3), Fraction(2**17 + 1, 7), Fraction(0.1) * 2**20])
def test_each_sample_is_the_nearest_whole_number_to_what_its_bits_say(scale):
    random = np.random.default_rng(1)
    words = random.integers(0, 2**64, 300, dtype=np.uint64)
    words[:8] = [0, 1, 2, TAIL, 2**63, 2**64 - 1, 5, 2**40]  # the far tail, and the middle
    found = rounded(words, more, scale)
    assert [int(one) for one in found] == [by_mpmath(int(word), n, scale) for n, word in enumerate(words)]


def test_what_floating_point_decides_is_what_rational_bounds_do():
    words = np.random.default_rng(2).integers(0, 2**64, 60, dtype=np.uint64)
    for scale in (Fraction(5, 3), Fraction(40) * 2**11):
        slow = [exactly(int(word) & TAIL, lambda block, n=n: more(n, block), scale) for n, word in enumerate(words)]
        assert np.abs(rounded(words, more, scale)).tolist() == slow


def test_bits_right_at_a_boundary_are_decided_by_further_ones(monkeypatch):
    """Where 63 digits of V are those of a boundary between two numbers, the next ones decide, one way and the other."""
    scale, between = Fraction(7), Fraction(19, 2)
    with mpmath.workdps(60):
        bound = mpmath.erfc(mpmath.mpf(between.numerator) / between.denominator / scale.numerator / mpmath.sqrt(2))
        digits63, rest = divmod(int(bound * mpmath.mpf(2) ** 127), 2**64)
    asked = []
    for further, expected in ((rest - 2**20, 10), (rest + 2**20, 9)):
        word = np.array([digits63], dtype=np.uint64)
        found = rounded(word, lambda number, block: asked.append((number, block)) or further, scale)  # noqa: B023
        assert found.tolist() == [expected]
    assert asked == [(0, 1), (0, 1)]
    assert beyond(digits63, 63, between / scale) is None


@settings(max_examples=40)
@given(st.integers(1, 2**63 - 2), st.fractions(Fraction(1, 2**20), 12))
def test_bounds_on_erfc_are_those_of_another_library(tail, bound):
    with mpmath.workdps(80):
        limit = mpmath.erfc(mpmath.mpf(bound.numerator) / bound.denominator / mpmath.sqrt(2)) * mpmath.mpf(2) ** 63
        expected = True if tail + 1 <= limit else False if tail >= limit else None
    assert beyond(tail, 63, bound) is expected


def test_pi_lies_between_its_bounds():
    for precise in (100, 160, 500):
        bounds = gaussian._pi(precise)
        assert isinstance(bounds, Bounds) and 0 < bounds.high - bounds.low < 4
        with mpmath.workprec(precise + 64):
            assert bounds.low < mpmath.pi * mpmath.mpf(2) ** precise < bounds.high


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_the_distribution_is_that_of_a_rounded_normal_variable(scale):
    words = np.random.default_rng(3).integers(0, 2**64, 200_000, dtype=np.uint64)
    found = rounded(words, more, Fraction(scale))
    most = int(4 * scale) + 1
    edges = np.concatenate([[-np.inf], np.arange(-most, most) + 0.5, [np.inf]])
    share = np.diff(stats.norm.cdf(edges, scale=scale))
    seen = np.array([(np.clip(found, -most, most) == k).sum() for k in range(-most, most + 1)])
    assert stats.chisquare(seen, share * len(found)).pvalue > 1e-4


@pytest.mark.parametrize(("sigma", "expected"), [(1.0, 16), (40.0, 11), (1.5, 16), (0.01, 23), (2.0**16, 0), (1e9, 0)])
def test_the_grid_is_a_fine_power_of_two_that_sigma_alone_decides(sigma, expected):
    assert digits(sigma) == expected
    assert sigma * 2**expected >= 2**16
    made = noise(np.arange(2**40, 2**40 + 4, dtype=np.uint64), more, sigma)
    assert made.steps.dtype == np.int64 and made.sigma == sigma


@pytest.mark.parametrize("sigma", [0.0, -1.0, 1e-9, 1e12, math.nan, math.inf])
def test_a_sigma_for_which_sums_would_not_be_exact_is_refused(sigma):
    with pytest.raises(MeshError, match="sigma: is"):
        digits(sigma)
