"""Programs of several repetitions: lines before them, one after the other, one in another."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.errors import HostLost
from kdmesh.report.grid import show
from kdmesh.report.tables import final_table, rounds_table

ROUND = [{"publish": ["a", "b"]}, {"lesson": "digest", "epochs": 1}]
BEFORE = {"lesson": "own", "epochs": 2}


def council(mesh: Any, program: list[dict[str, Any]], **fields: Any) -> kdmesh.Mesh:
    """Two peers that learn alone, and hear each other in rounds."""
    half = {"of": "train", "size": 40, "labels": False}
    made: kdmesh.Mesh = mesh(["a", "b"], streams={"half": half}, seed=3, **fields)
    made.flow("labels", ["a", "b"], objective="ce", lesson="own")
    made.consensus("c", "mean")
    made.flow(["a", "b"], "c", stream="half", refresh="round")
    made.flow("c", ["a", "b"], objective="kl", stream="half", lesson="digest")
    made._fields["program"] = program
    return made


def outcome(made: kdmesh.Mesh, **how: Any) -> tuple[list[Any], dict[str, str]]:
    """Rounds with their gains, and weights."""
    result = made.run(backend="inline", **how)
    rounds = [(one.get("within", ""), one["round"], one["rounds"], one["metrics"]) for one in result.summary["rounds"]]
    return rounds, {name: agent.weights_sha256 for name, agent in result.agents.items()}


PAIR = ["a", "b"]
WAYS = {
    "one program": [{"of": PAIR, "do": [BEFORE, {"repeat": 3, "do": ROUND}]}],
    "repeat: 1 around it": [{"of": PAIR, "repeat": 1, "do": [BEFORE, {"repeat": 3, "do": ROUND}]}],
    "two programs": [{"of": PAIR, **BEFORE}, {"of": PAIR, "repeat": 3, "do": ROUND}],
    "two programs, of one each": [{"of": "a", **BEFORE}, {"of": "b", "repeat": 3, "do": ROUND}],
}


@pytest.mark.parametrize("way", WAYS)
def test_pretraining_and_then_rounds_however_it_is_written(mesh: Any, way: str) -> None:
    expected = outcome(council(mesh, WAYS["one program"]))
    rounds, weights = outcome(council(mesh, WAYS[way]))
    assert (rounds, weights) == expected
    assert [(within, number, of) for within, number, of, _ in rounds] == [("", number, 3) for number in (1, 2, 3)]
    last = rounds[-1][3]
    assert any(gain != 0 for gain in last["gain"].values())


def test_the_table_has_the_gain_since_before_anyone_heard_a_consensus(mesh: Any) -> None:
    result = council(mesh, WAYS["repeat: 1 around it"]).run(backend="inline")
    made = mesh(["a", "b"], seed=3, train={"epochs": 2})
    made.flow("labels", ["a", "b"], objective="ce")
    alone = made.run(backend="inline")
    gain = result["a"].metrics["validation"]["accuracy"] - alone["a"].metrics["validation"]["accuracy"]
    rows = {row["name"]: row for row in final_table(result.summary).rows}
    assert rows["a"]["gain"] == pytest.approx(gain) != 0


def test_repetitions_in_repetitions_are_told_apart(mesh: Any) -> None:
    inner = {"repeat": 2, "do": ROUND}
    again = {"lesson": "own", "epochs": 1}
    rounds, _ = outcome(council(mesh, [{"of": PAIR, "do": [BEFORE, {"repeat": 2, "do": [again, inner]}]}]))
    assert [(within, number) for within, number, _, _ in rounds] == [
        ("1.1.1", 1), ("1.1.1", 2), ("1", 1), ("1.2.1", 1), ("1.2.1", 2), ("1", 2)
    ]  # fmt: skip
    turns = {(within, number): metrics for within, number, _, metrics in rounds}
    assert turns["1", 1]["gain"] == turns["1.1.1", 2]["gain"]  # both since before anyone heard
    assert turns["1", 1]["agreement"] == turns["1.1.1", 2]["agreement"]
    first, now = turns["1.1.1", 1], turns["1", 2]
    for name in PAIR:
        began = first["accuracy"][name] - first["gain"][name]
        assert now["gain"][name] == pytest.approx(now["accuracy"][name] - began)
    file = io.StringIO()
    events = [{"stage": "a", "within": a, "round": b, "metrics": metrics} for a, b, _, metrics in rounds]
    show(file, rounds_table(events))
    assert "in line" in file.getvalue() and "1.2.1" in file.getvalue()


def test_a_nested_program_that_was_broken_off_ends_as_an_unbroken_one(
    mesh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = {"repeat": 2, "do": ROUND}
    program = [{"of": PAIR, **BEFORE}, {"of": PAIR, "repeat": 1, "do": [BEFORE, {"repeat": 2, "do": [inner]}]}]
    expected = outcome(council(mesh, program))
    call, open_ = InlineBackend.call, InlineBackend.open
    calls, last, given = 0, 0, []

    def mortal(self: Any, host: str, method: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            error = HostLost(f"{host} was lost")
            error.host = host
            raise error
        return call(self, host, method, *args, **options)

    def opened(self: Any, *args: Any) -> None:
        given[:] = args
        open_(self, *args)

    monkeypatch.setattr(InlineBackend, "call", mortal)
    monkeypatch.setattr(InlineBackend, "open", opened)
    monkeypatch.setattr(InlineBackend, "lost", lambda self: [], raising=False)
    monkeypatch.setattr(InlineBackend, "rebuild", lambda self, plan: open_(self, *given))
    outcome(council(mesh, program), out=tmp_path / "whole", checkpoint_seconds=0)
    whole = calls
    for part in range(1, 5):
        calls, last = 0, whole * part // 5
        found = outcome(council(mesh, program), out=tmp_path / str(part), checkpoint_seconds=0)
        assert found == expected, last
