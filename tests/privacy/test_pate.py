"""The data-dependent bound is that of its authors' code, and never above what holds on any data.

Figures of pate_core.json are those that the authors' own functions return; the file says which.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.privacy.pate import private_log_other, private_log_side, private_rdp

GOLDEN = json.loads(Path(__file__).with_name("pate_core.json").read_text(encoding="utf-8"))
ORDERS = GOLDEN["orders"]


@pytest.mark.parametrize("row", GOLDEN["gnmax"], ids=lambda row: f"{row['votes']} {row['sigma']}")
def test_noisy_argmax_costs_what_the_authors_code_says(row):
    (log_q,) = private_log_other(np.array([row["votes"]]), row["sigma"])
    assert log_q == pytest.approx(row["log_q"], rel=1e-12)
    assert private_rdp(float(log_q), 1 / row["sigma"] ** 2, ORDERS) == pytest.approx(row["rdp"], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("row", GOLDEN["threshold"], ids=lambda row: f"{row['votes']} {row['sigma']}")
def test_the_threshold_costs_what_the_authors_code_says(row):
    (log_q,) = private_log_side(np.array([row["votes"]]), row["threshold"], row["sigma"])
    assert log_q == pytest.approx(row["log_q"], rel=1e-12)
    rho = 1 / (2 * row["sigma"] ** 2)
    assert private_rdp(float(log_q), rho, ORDERS) == pytest.approx(row["rdp"], rel=1e-9, abs=1e-15)


def test_the_bound_holds_for_what_noise_does():
    random = np.random.default_rng(0)
    votes = np.array([[60, 40, 10], [50, 49, 11], [100, 5, 5]])
    noisy = votes + random.normal(0, 12.0, (100_000, *votes.shape))
    other = (noisy.argmax(2) != votes.argmax(1)).mean(0)
    bound = np.exp(private_log_other(votes, 12.0))
    assert (other <= bound + 4 * np.sqrt(bound / 100_000)).all() and (other[:2] >= 0.9 * bound[:2]).all()
    reached = (votes.max(1) + random.normal(0, 12.0, (100_000, 3)) >= 70).mean(0)
    side = np.exp(private_log_side(votes, 70, 12.0))
    assert np.minimum(reached, 1 - reached) == pytest.approx(side, abs=0.006)


@settings(max_examples=50, deadline=None)
@given(st.floats(-700, -0.01), st.floats(0.5, 300))
def test_it_is_never_above_what_holds_on_any_data_and_grows_with_q(log_q, sigma):
    rho = 1 / sigma**2
    plain = [order * rho for order in ORDERS]
    found = private_rdp(log_q, rho, ORDERS)
    assert all(0 <= one <= most for one, most in zip(found, plain, strict=True))
    worse = private_rdp(log_q * 0.9, rho, ORDERS)
    assert all(one <= other * (1 + 1e-9) + 1e-15 for one, other in zip(found, worse, strict=True))


def test_what_never_changes_costs_nothing_and_a_coarser_grid_more():
    assert private_rdp(-math.inf, 1.0, ORDERS) == [0.0] * len(ORDERS)
    votes = np.array([[200, 50, 0]])
    assert private_log_other(votes, 40.0) < private_log_other(votes, 40.0, grid=1.0)
    assert private_log_side(votes, 100, 40.0) < private_log_side(votes, 100, 40.0, grid=1.0)
