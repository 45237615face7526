from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.report.paired import over_seeds
from kdmesh.statistics import interval, paired

# Two-sided 95% quantiles of Student's t, from any printed table.
QUANTILES = {1: 12.7062, 2: 4.30265, 4: 2.77645, 9: 2.26216, 30: 2.04227}


@pytest.mark.parametrize(("freedom", "quantile"), QUANTILES.items())
def test_the_half_width_is_the_printed_quantile_times_the_standard_error(freedom, quantile):
    values = [0.0, 1.0] * freedom  # more than needed; cut to n
    values = values[: freedom + 1]
    mean = sum(values) / len(values)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / freedom / len(values))
    found, half_width = interval(values)
    assert found == pytest.approx(mean)
    assert half_width == pytest.approx(quantile * error, rel=1e-5)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert interval([0.9]) == (0.9, None)
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_equal_values_have_an_interval_of_no_width():
    assert interval([0.25, 0.25, 0.25]) == (0.25, 0.0)


def test_pairs_are_taken_by_seed():
    # Seeds differ far more than the two methods do: only the pairing sees that a always wins.
    a, b = [0.60, 0.75, 0.90], [0.59, 0.74, 0.89]
    result = paired(a, b)
    assert (result["wins"], result["ties"], result["n"]) == (3, 0, 3)
    assert result["mean"] == pytest.approx(0.01) and result["half_width"] < 1e-9
    assert interval(a)[1] > 0.3
    with pytest.raises(ValueError):
        paired(a, b[:2])


def test_one_pair_has_no_half_width():
    pair = paired([0.5], [0.5])
    assert pair["half_width"] is None and [pair[key] for key in ("mean", "wins", "ties", "n")] == [0.0, 0, 1, 1]


accuracies = st.integers(0, 360).map(lambda right: right / 360)


@settings(deadline=None)
@given(st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=8))
def test_the_other_way_round_everything_is_mirrored(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    there, back = paired(a, b), paired(b, a)
    assert there["mean"] == pytest.approx(-back["mean"])
    assert there["half_width"] == pytest.approx(back["half_width"])
    assert there["ties"] == back["ties"] and there["wins"] + back["wins"] + there["ties"] == len(pairs)


def node(accuracy: float, role: str = "teacher") -> dict:
    return {"role": role, "metrics": {"test": {"accuracy": accuracy}, "validation": {"accuracy": 0.5}}}


def summary(seed: int, t1: float, t2: float, c: float, s: float, best: str, alone: float) -> dict:
    return {
        "seed": seed,
        "agents": {"t1": node(t1), "t2": node(t2), "s": {**node(s, "student"), "best_teacher": best}},
        "consensus": {"c": {"sources": ["t1", "t2"], "metrics": {"test": {"accuracy": c}}}},
        "controls": {"s": {"alone": {"test": {"accuracy": alone}}}},
    }


def test_seeds_are_compared_with_the_teacher_that_each_run_chose_on_validation():
    runs = [summary(0, 0.75, 0.5, 0.875, 0.75, "t2", 0.5), summary(1, 0.5, 0.75, 0.75, 0.75, "t2", 0.75)]
    result = over_seeds(runs)
    assert result["seeds"] == [0, 1]
    assert result["accuracy"]["c"] == {
        "role": "consensus",
        "mean": 0.8125,
        "half_width": pytest.approx(0.794, abs=1e-3),
        "n": 2,
    }
    assert list(result["differences"]) == ["s"]
    against = result["differences"]["s"]
    # In seed 0 the test metric prefers t1; validation chose t2, and t2 it stays.
    assert against["best teacher"]["mean"] == 0.125 and against["best teacher"]["wins"] == 1
    assert against["consensus c"]["wins"] == 0 and against["consensus c"]["ties"] == 1
    assert against["control alone"]["mean"] == 0.125 and against["control alone"]["n"] == 2
    assert "control best teacher" not in against


def test_what_a_seed_lacks_is_left_out_of_the_pairs():
    first, second = (summary(seed, 0.5, 0.5, 0.5, 0.75, "t1", 0.5) for seed in (0, 1))
    del second["controls"], second["consensus"]
    second["agents"]["s"]["best_teacher"] = None
    result = over_seeds([first, second])
    assert result["accuracy"]["s"]["n"] == 2 and result["accuracy"]["c"]["n"] == 1
    assert {key: pair["n"] for key, pair in result["differences"]["s"].items()} == {
        "best teacher": 1,
        "consensus c": 1,
        "control alone": 1,
    }


def test_peers_without_a_teacher_are_compared_with_nobody():
    result = over_seeds([{"seed": 0, "agents": {"a": node(0.5, "peer"), "b": {"role": "peer"}}}])
    assert result["differences"] == {"a": {}} and list(result["accuracy"]) == ["a"]


def test_the_module_imports_nothing_heavy():
    probe = "import sys, kdmesh.report.paired; print({'torch', 'scipy', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_comparison_without_any_pair_is_not_made():
    first, second = (summary(seed, 0.5, 0.5, 0.5, 0.75, "t1", 0.5) for seed in (0, 1))
    del first["agents"]["s"]["metrics"], second["controls"]
    assert list(over_seeds([first, second])["differences"]["s"]) == ["best teacher", "consensus c"]


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_a_figure_that_is_not_finite_is_as_one_that_was_not_measured(odd):
    runs = [summary(seed, 0.75, 0.5, 0.875, 0.75, "t1", 0.5) for seed in range(3)]
    runs[1]["agents"]["s"]["metrics"]["test"]["accuracy"] = odd
    found = over_seeds(runs)
    assert found["accuracy"]["s"]["n"] == 2
    assert found["differences"]["s"]["control alone"]["n"] == 2
