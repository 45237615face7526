"""ExpGuard in rounds: weights move once a round, and go on where a run broke off."""

from __future__ import annotations

from math import log
from typing import Any

import pytest

import kdmesh

ROUNDS, SAMPLES = 3, 40


def parties(mesh: Any, **fields: Any) -> kdmesh.Mesh:
    """Three that agree on a public stream in rounds; another one, which does not learn, answers at random."""
    agents = {"a": {}, "b": {}, "c": {}, "liar": {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}}
    public = {"of": "train", "size": SAMPLES, "labels": False}
    made: kdmesh.Mesh = mesh(agents, streams={"public": public}, seed=3, **fields)
    rule = {"expguard": {"step": 2.0}}
    made.connect("rounds", teachers="liar", students=["a", "b", "c"], rounds=ROUNDS, stream="public", consensus=rule)
    return made


def outcome(summary: dict[str, Any]) -> Any:
    (node,) = summary["consensus"].values()
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}, node["report"]


def test_weights_move_once_a_round_and_are_reported(mesh: Any) -> None:
    summary = parties(mesh).run(backend="inline").summary
    (node,) = summary["consensus"].values()
    report = node["report"]
    names = ["liar", "a", "b", "c"]
    assert list(report) == [f"weight of {name}" for name in names] + [f"outlier of {name}" for name in names]
    assert sum(report[f"weight of {name}"] for name in names) == pytest.approx(1)
    assert report["weight of liar"] == min(report[f"weight of {name}"] for name in names)
    # three rounds of step 2 on the mean outliers of a round: the log of a ratio is their difference
    ratio = report["weight of liar"] / report["weight of a"]
    expected = -2.0 * ROUNDS * (report["outlier of liar"] - report["outlier of a"])
    assert log(ratio) == pytest.approx(expected)


def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(mesh: Any, broken_off: Any) -> None:
    expected = outcome(parties(mesh).run(backend="inline").summary)
    for summary in broken_off(lambda: parties(mesh)):
        assert outcome(summary) == expected


def test_measuring_and_placement_change_nothing(mesh: Any) -> None:
    expected = outcome(parties(mesh).run(backend="inline").summary)
    assert outcome(parties(mesh, train={"evaluate_every": 1}).run(backend="inline").summary) == expected
    assert outcome(parties(mesh, placement="spread").run(backend="inline").summary) == expected
