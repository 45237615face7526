"""How many forwards a run makes, and how many the store saves."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("peers", [2, 3, 4])
def test_k_simultaneous_peers_forward_once_each_a_step(mesh: Any, peers: int) -> None:
    names = [f"p{number}" for number in range(peers)]
    made = mesh(names)
    made.connect("mutual", peers=names)
    agents = made.run(backend="inline").summary["agents"]
    assert [agents[name]["forwards"] for name in names] == [{"made": 9, "saved": 0}] * peers


def test_sequential_peers_forward_again_for_those_after_them(mesh: Any) -> None:
    made = mesh(["a", "b", "c"])
    made.connect("mutual", peers=["a", "b", "c"], order="sequential")
    agents = made.run(backend="inline").summary["agents"]
    assert [agents[name]["forwards"]["made"] for name in "abc"] == [18, 18, 9]


@pytest.mark.parametrize(("refresh", "forwards", "saved"), [("once", 3, 15), ("step", 18, 0)])
def test_a_stored_teacher_answers_once_for_all(mesh: Any, refresh: str, forwards: int, saved: int) -> None:
    """Two students, three epochs of three batches each: one full pass of three forwards serves eighteen steps."""
    made = mesh({"t": {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}, "s1": {}, "s2": {}})
    made.connect("ensemble", teachers="t", students=["s1", "s2"], refresh=refresh)
    found = made.run(backend="inline").summary["agents"]["t"]["forwards"]
    assert found == {"made": forwards, "saved": saved}


def test_measuring_is_not_counted(mesh: Any) -> None:
    made = mesh(["s"], train={"evaluate_every": 1})
    made.flow("labels", "s", objective="ce")
    assert made.run(backend="inline").summary["agents"]["s"]["forwards"]["made"] == 9
