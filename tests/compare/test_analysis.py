from __future__ import annotations

import numpy as np
import pytest

from kdmesh.compare.analysis import analyse
from kdmesh.compare.comparison import sheet
from kdmesh.compare.design import Design, Trial
from kdmesh.report.compare_table import compare_tables, limits
from kdmesh.statistics import interval, over_samples, paired, verdicts


def summary(value: float | None, alone: float = 0.5, seed: int = 0) -> dict:
    agent = {"role": "student", "metrics": {"test": {} if value is None else {"accuracy": value}}}
    return {"seed": seed, "agents": {"s": agent}, "controls": {"s": {"alone": {"test": {"accuracy": alone}}}}}


def design(seeds: int = 3, splits: int = 1, names: str = "ab", **more) -> Design:
    contenders = {name: {"mesh": {}, "agent": "s"} for name in names}
    return Design.model_validate(
        {"contenders": contenders, "seeds": list(range(seeds)), "data_seeds": list(range(splits)), **more}
    )


def made(asked: Design, value) -> dict[Trial, dict]:
    return {one: summary(value(one), seed=one.seed) for one in asked.trials()}


A = [0.90, 0.91, 0.95]
B = [0.80, 0.82, 0.84]


def of(trial: Trial) -> float:
    return {"a": A, "b": B, "c": [0.7, 0.9, 0.8]}[trial.contender][trial.seed]


def test_differences_are_paired_by_seed_and_judged_together():
    asked = design(names="abc")
    table = analyse(asked, made(asked, of))
    known = [paired(B, A), paired([0.7, 0.9, 0.8], A)]
    expected = verdicts(known)
    assert [row["p"] for row in table["differences"]] == [row["p"] for row in expected]
    assert [row["verdict"] for row in table["differences"]] == ["worse", "no difference shown"]
    assert table["differences"][0]["mean"] == pytest.approx(-0.1)
    assert table["contenders"][0]["mean"] == pytest.approx(0.92) and table["contenders"][0]["n"] == 3
    assert table["contenders"][0]["controls"][0]["verdict"] == "better"  # against alone


def test_a_control_that_could_not_be_made_is_told_beneath_the_table():
    asked = design()
    known = made(asked, of)
    for trial, one in known.items():
        if trial.contender == "b":
            one["controls"]["s"]["best_teacher"] = {"skipped": "it wants two sources"}
    table = analyse(asked, known)
    assert table["contenders"][1]["no_control"] == {"best_teacher": "it wants two sources"}
    assert "no_control" not in table["contenders"][0]
    said = " ".join(limits(table))
    assert "b has no control by the best teacher only: it wants two sources" in said


def test_mean_rewards_of_what_was_written_stand_beside():
    asked = design()
    known = made(asked, of)
    for trial, one in known.items():
        if trial.contender == "b":
            told = {"written": 8, "reward": {"texts": 8, "average": 0.25 * (trial.seed + 1)}}
            one["streams"] = {"rollouts": told, "plain": {"written": 8}, "unknown": {"reward": {"average": None}}}
    table = analyse(asked, known)
    mean, half = interval([0.25, 0.5, 0.75])
    assert table["contenders"][1]["rewards"] == {"rollouts": {"mean": mean, "half_width": half, "n": 3}}
    assert "rewards" not in table["contenders"][0]
    (grid,) = [grid for grid in compare_tables(table) if grid.title == "rewards of written texts"]
    assert [(row["contender"], row["stream"], row["mean"]) for row in grid.rows] == [("b", "rollouts", 0.5)]
    assert all(grid.title != "rewards of written texts" for grid in compare_tables(analyse(asked, made(asked, of))))


def test_trials_that_are_missing_on_one_side_are_left_out_of_the_pairs():
    asked = design()
    known = made(asked, of)
    del known[Trial(contender="a", data_seed=0, seed=1)]
    known[Trial(contender="b", data_seed=0, seed=2)] = summary(None)
    table = analyse(asked, known, {Trial(contender="a", data_seed=0, seed=1): "it broke"})
    assert table["differences"][0]["n"] == 1 and table["differences"][0]["verdict"] is None
    assert table["failed"] == {"a, seed 1": "it broke"}
    nothing = analyse(asked, {one: was for one, was in known.items() if one.contender == "a"})
    assert nothing["differences"][0]["lacks"]


def test_of_several_splits_each_gives_one_difference():
    asked = design(seeds=2, splits=3)
    table = analyse(
        asked, made(asked, lambda one: 0.5 + 0.1 * (one.contender == "b") + 0.01 * one.data_seed * one.seed)
    )
    row = table["differences"][0]
    assert (table["unit"], row["n"]) == ("split", 3)
    assert row["mean"] == pytest.approx(0.1)
    assert "over_samples" not in row
    first = table["contenders"][0]
    assert first["n"] == 6
    assert (first["mean"], first["half_width"]) == pytest.approx(
        interval([0.5, 0.505, 0.51])
    )  # of splits, not of trials
    sharing = asked.model_copy(update={"shared": 0.25})
    corrected = analyse(sharing, made(sharing, lambda one: 0.5 + 0.1 * (one.contender == "b") * one.data_seed))
    assert corrected["differences"][0] == {
        **corrected["differences"][0],
        **paired([0.5, 0.6, 0.7], [0.5] * 3, shared=0.25),
    }


def test_the_interval_over_samples_is_of_the_scores_of_the_paired_trials():
    asked = design()
    rng = np.random.default_rng(0)
    scores = {one: (rng.random(50) < of(one)).astype(float) for one in asked.trials()}
    table = analyse(asked, made(asked, of), scores=lambda trial, agent: scores[trial])
    a, b = (np.stack([scores[one] for one in asked.trials() if one.contender == name]) for name in "ab")
    mean, low, high = over_samples(b, a)
    expected = {"mean": mean, "low": low, "high": high, "samples": 50, "trials": 3}
    assert table["differences"][0]["over_samples"] == expected


def test_a_margin_gives_the_word_equal():
    asked = design(equal=0.05)
    table = analyse(asked, made(asked, lambda one: 0.9 + 0.001 * one.seed + 0.0005 * (one.contender == "b") * one.seed))
    assert table["differences"][0]["verdict"] == "equal"
    text = "\n".join(line for grid in compare_tables(table) for line in grid.lines(80))
    assert "equal within 0.05" in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_tables_fit_and_say_what_the_figures_do_not(width):
    asked = design(names="abc")
    lines = [line for grid in compare_tables(analyse(asked, made(asked, of))) for line in grid.lines(width)]
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for words in ("not of which samples are tested", "2 comparisons (Holm)", "worse", "higher is better"):
        assert words in text


def test_the_sheet_has_a_row_for_every_trial():
    asked = design(seeds=2)
    rows = sheet(analyse(asked, made(asked, of)))
    assert rows[0] == ("a", "s", 0, 0, "accuracy", 0.9) and len(rows) == 4


def test_samples_that_count_for_one_alone_give_no_interval_over_samples():
    asked = design()
    scores = {one: np.linspace(0, 1, 8) * of(one) for one in asked.trials()}
    for one in asked.trials():
        scores[one][0 if one.contender == "a" or one.seed else 1] = np.nan
    table = analyse(asked, made(asked, of), scores=lambda trial, agent: scores[trial])
    found = table["differences"][0]["over_samples"]
    assert (found["trials"], found["samples"]) == (2, 7)  # seed 0 counts other samples for each
