"""Rules that go by step, epoch and round: what they are told, on every placement, and in runs that were broken off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import kdmesh
from kdmesh.consensus import Rule, weighted_sum
from kdmesh.errors import MeshError
from kdmesh.offers import Config, ConsensusOffer
from kdmesh.plugins import registry

FROZEN = {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}
SEEN: list[tuple[int | None, ...]] = []


class Turning(Rule):
    """From the first source to the last, as time goes by."""

    def weights(self, logits: Tensor, *, labels: Any = None, present: Any = None, **now: int) -> Tensor:
        SEEN.append(tuple(now.values()))
        shares = torch.full(logits.shape[:2], 1.0 / (2 + sum(now.values())))
        shares[0] = 1 - shares[1:].sum(0)
        return shares

    def forward(self, values: Tensor, *, logits: Tensor, **now: Any) -> Tensor:
        return weighted_sum(values, self.weights(logits, **now))


class Counting(Turning):
    """The same, with a state that goes by the time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spent", torch.zeros((), dtype=torch.int64))

    def forward(self, values: Tensor, *, logits: Tensor, **now: Any) -> Tensor:
        mixed = super().forward(values, logits=logits, **now)
        self.spent += 1 + now["step"]
        return mixed if self.spent % 2 else mixed.flip(-1)

    def report(self) -> dict[str, float]:
        return {"spent": int(self.spent)}


class Needs(Config):
    """None."""


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = ("probs", "logits", "loss")
    for offer in (
        ConsensusOffer("turning", f"{__name__}:Turning", Needs, spaces=spaces, needs=("step", "epoch")),
        ConsensusOffer("by_round", f"{__name__}:Turning", Needs, needs=("step", "round")),
        ConsensusOffer("counting", f"{__name__}:Counting", Needs, needs=("step", "epoch"), stateful=True),
    ):
        monkeypatch.setitem(registry()._offers["consensus"], offer.name, offer)
    SEEN.clear()


def taught(mesh: Any, refresh: str, rule: str = "turning", space: str | None = None, **fields: Any) -> kdmesh.Mesh:
    """A student of two peers that learn; what they say is combined live or as they publish."""
    made: kdmesh.Mesh = mesh({"a": {}, "b": {}, "s": {}, "z": {}}, seed=4, **fields)
    made.flow("labels", ["a", "b"], objective="ce")
    made.consensus("c", rule, **({} if space is None else {"space": space}))
    made.flow(["a", "b"], "c", refresh=refresh)
    made.flow("c", ["s", "z"], objective="kl")
    return made


def rounds(mesh: Any, **fields: Any) -> kdmesh.Mesh:
    made: kdmesh.Mesh = mesh(
        ["a", "b"], streams={"half": {"of": "train", "size": 40, "labels": False}}, seed=3, **fields
    )
    made.connect("rounds", students=["a", "b"], rounds=3, stream="half", consensus="by_round")
    return made


MESHES = {
    "live": lambda mesh, **more: taught(mesh, "step", **more),
    "epoch": lambda mesh, **more: taught(mesh, "epoch", **more),
    "steps": lambda mesh, **more: taught(mesh, "2 steps", **more),
    "once": lambda mesh, **more: taught(mesh, "once", **more),
    "loss": lambda mesh, **more: taught(mesh, "step", space="loss", **more),
    "counting live": lambda mesh, **more: taught(mesh, "step", "counting", **more),
    "counting steps": lambda mesh, **more: taught(mesh, "2 steps", "counting", **more),
    "rounds": rounds,
}
every = pytest.mark.parametrize("name", MESHES)


def outcome(summary: dict[str, Any]) -> Any:
    """What must be equal: weights, what rules say of themselves, and how a consensus was measured."""
    nodes = {name: (node.get("report"), node["metrics"]) for name, node in summary["consensus"].items()}
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}, nodes


def told(make: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | None, ...]]:
    """What the rule is told in a run, without the trial before it and without being measured."""
    monkeypatch.setattr("kdmesh.engine.trial.STEPS", 0)
    monkeypatch.setattr("kdmesh.hosts.measure.combined", lambda *args: None)
    make.run(backend="inline")
    return list(SEEN)


def test_a_live_rule_is_told_each_step_of_its_reader(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(MESHES["live"](mesh), monkeypatch) == [(step, step // 3) for step in range(9) for _ in "sz"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("epoch", [(3, 1), (6, 2)]), ("steps", [(2, 0), (4, 1), (6, 2), (8, 2)]), ("once", [(0, 0)])],
)
def test_a_stored_rule_is_told_when_it_is_first_read(
    mesh: Any, name: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(MESHES[name](mesh), monkeypatch) == [now for now in expected for _ in "sz"]


def test_rounds_are_counted(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(rounds(mesh), monkeypatch) == [now for now in ((0, 1), (2, 2), (4, 3)) for _ in "ab"]


@every
def test_placement_changes_nothing(mesh: Any, name: str) -> None:
    make = MESHES[name]
    apart = {"one": ["a"], "two": ["b", "s", "z"]} if "counting" in name else "spread"
    assert outcome(make(mesh, placement=apart).run(backend="inline").summary) == outcome(
        make(mesh).run(backend="inline").summary
    )


BETWEEN = {"train": {"epochs": 4, "evaluate_every": 1}}
"""Checkpoints at the ends of epochs of 3 steps, between publications."""
BROKEN = {
    "live": lambda mesh: taught(mesh, "step"),
    "steps": lambda mesh: taught(mesh, "5 steps", **BETWEEN),
    "counting": lambda mesh: taught(mesh, "5 steps", "counting", **BETWEEN),
    "rounds": rounds,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(mesh: Any, name: str, broken_off: Any) -> None:
    expected = outcome(BROKEN[name](mesh).run(backend="inline").summary)
    for summary in broken_off(lambda: BROKEN[name](mesh)):
        assert outcome(summary) == expected


def test_a_rule_that_goes_by_rounds_is_refused_without_any(mesh: Any) -> None:
    with pytest.raises(MeshError, match="rule 'by_round' needs `round`, and s trains in no rounds") as error:
        taught(mesh, "epoch", "by_round").plan()
    assert error.value.where == "consensus.c.rule"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rule": "mean", "per_target": True}, "rule 'mean' gives all its readers one signal"),
        ({"rule": "mean", "per_target": True, "space": "loss"}, "in space loss a rule weighs the sources for each"),
    ],
)
def test_per_target_is_refused_where_a_rule_does_not_know_it(mesh: Any, fields: Any, said: str) -> None:
    made = mesh({"a": FROZEN, "b": FROZEN, "s": {}})
    made.consensus("c", fields.pop("rule"), **fields)
    made.flow(["a", "b"], "c")
    made.flow("c", "s", objective="kl")
    with pytest.raises(MeshError, match=said) as error:
        made.run(backend="inline")
    assert error.value.where == "consensus.c.per_target"
