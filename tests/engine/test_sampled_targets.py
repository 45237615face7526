"""Sampled targets between agents that classify: live and stored, together and spread; who may read them."""

from __future__ import annotations

from typing import Any

import pytest

from kdmesh.errors import MeshError

FROZEN = {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}


@pytest.mark.parametrize("objective", ["kl", "ce"])
def test_in_a_mesh_live_stored_together_and_spread_teach_the_same(mesh: Any, hashes: Any, objective: str) -> None:
    found = []
    for refresh in ("step", "once"):
        for placement in ("together", "spread"):
            made = mesh({"teacher": FROZEN, "s": {}}, train={"epochs": 1}, placement=placement)
            made.flow("teacher", "s", objective=objective, signal={"sampled": {"draws": 2, "k": 1}}, refresh=refresh)
            found.append(hashes(made)["s"])
    assert set(found) == {found[0]}
    made = mesh({"teacher": FROZEN, "s": {}}, train={"epochs": 1})
    made.flow("teacher", "s", objective=objective, signal={"sampled": {"draws": 2, "k": 1, "seed": 1}})
    assert hashes(made)["s"] != found[0]


@pytest.mark.parametrize(
    ("objective", "signal", "said"),
    [
        ("reverse_kl", {"draws": 2}, "'reverse_kl' is not linear in its target"),
        ("jsd", {"draws": 2}, "not linear"),
        ("kl", {"draws": 0}, "greater than or equal to 1"),
        ("kl", {"draws": 1, "k": 4}, "the likeliest 4 of 3 outputs"),
    ],
)
def test_what_cannot_be_is_refused(mesh: Any, objective: str, signal: dict[str, int], said: str) -> None:
    made = mesh({"teacher": FROZEN, "s": {}})
    made.flow("teacher", "s", objective=objective, signal={"sampled": signal})
    with pytest.raises(MeshError, match=said):
        made.run(backend="inline")


def test_a_consensus_does_not_combine_it(mesh: Any) -> None:
    made = mesh({"a": FROZEN, "b": FROZEN, "s": {}})
    made.consensus("c", "mean")
    made.flow(["a", "b"], "c", signal={"sampled": {"draws": 2}})
    made.flow("c", "s", objective="kl")
    with pytest.raises(MeshError, match="for objectives alone"):
        made.run(backend="inline")
