"""`refresh` on flows from a consensus: when it is made anew, that it is kept until then, and what cannot be so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import kdmesh
from kdmesh.consensus import Rule
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.consensus import Consensus, fingerprint
from kdmesh.offers import Config, ConsensusOffer
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec

FROZEN = {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}


class Sharper(Rule):
    """A mean that gets sharper with each step of its reader."""

    def forward(self, values: Tensor, *, step: int, **given: Any) -> Tensor:
        return (values.mean(0).log() * (1 + step)).softmax(-1)


class Counted(Rule):
    """A mean that counts the rows it was asked about, and moves with them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))

    def forward(self, values: Tensor, **given: Any) -> Tensor:
        self.rows += values.shape[1]
        return (values.mean(0).log() / (1 + self.rows / 1000)).softmax(-1)

    def report(self) -> dict[str, float]:
        return {"rows": int(self.rows)}


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    for offer in (
        ConsensusOffer("sharper", f"{__name__}:Sharper", Config, spaces=("probs",), needs=("step",)),
        ConsensusOffer("counted", f"{__name__}:Counted", Config, spaces=("probs",), stateful=True),
    ):
        monkeypatch.setitem(registry()._offers["consensus"], offer.name, offer)


def made(mesh: Any, refresh: Any, sources: Any = "2 steps", rule: str = "mean", **fields: Any) -> kdmesh.Mesh:
    """Two peers that learn and publish; what their consensus says is read by s and z."""
    of: kdmesh.Mesh = mesh({"a": {}, "b": {}, "s": {}, "z": {}}, seed=4, **fields)
    of.flow("labels", ["a", "b"], objective="ce")
    of.consensus("c", rule)
    of.flow(["a", "b"], "c", **({} if sources is None else {"refresh": sources}))
    of.flow("c", ["s", "z"], objective="kl", **({} if refresh is None else {"refresh": refresh}))
    return of


def frozen(mesh: Any, refresh: str | None, rule: str, **fields: Any) -> kdmesh.Mesh:
    of: kdmesh.Mesh = mesh({"a": FROZEN, "b": FROZEN, "s": {}, "z": {}}, seed=4, **fields)
    of.consensus("c", rule)
    of.flow(["a", "b"], "c")
    of.flow("c", ["s", "z"], objective="kl", **({} if refresh is None else {"refresh": refresh}))
    return of


def rounds(mesh: Any, publishes: bool = True, **fields: Any) -> kdmesh.Mesh:
    """Peers agree; they publish often, and what they agree on is made anew in each round."""
    lines: list[Any] = [{"publish": ["a", "b"]}] if publishes else []
    lines += [{"lesson": "all", "steps": 3}, {"lesson": "more", "steps": 2}]
    program = [{"of": ["a", "b"], "repeat": 3, "do": lines}]
    of: kdmesh.Mesh = mesh(["a", "b"], seed=3, program=program, **fields)
    of.flow("labels", ["a", "b"], objective="ce")
    of.consensus("c", "mean")
    of.flow(["a", "b"], "c", refresh="round" if publishes else "2 steps")
    of.flow("c", ["a", "b"], objective="kl", refresh="round")
    return of


def outcome(summary: dict[str, Any]) -> Any:
    nodes = {name: (node.get("report"), node["metrics"]) for name, node in summary["consensus"].items()}
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}, nodes


def formed(of: kdmesh.Mesh, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, Tensor]]:
    """What the consensus said of the whole stream, each time it was formed, and for whom."""
    found: list[tuple[str | None, Tensor]] = []
    combine = Consensus.combine

    def noted(self: Consensus, reader: str | None, *args: Any, **more: Any) -> Any:
        signal = combine(self, reader, *args, **more)
        if reader is not None and signal is not None:
            found.append((reader, signal.value.clone()))
        return signal

    monkeypatch.setattr(Consensus, "combine", noted)
    of.run(backend="inline")
    return [(reader, value) for reader, value in found if len(value) == 90]


@pytest.mark.parametrize(
    ("refresh", "times", "different"),
    [(None, 4, 4), ("epoch", 3, 2), ("4 steps", 3, 3), ("once", 1, 1), ("100 steps", 1, 1)],
)  # of 9 steps in 3 epochs, with publications after 2, 4, 6 and 8
def test_it_is_made_anew_where_its_period_ends(
    mesh: Any, refresh: Any, times: int, different: int, monkeypatch: Any
) -> None:
    found = formed(made(mesh, refresh), monkeypatch)
    readers = ["s"] if refresh is None else ["s", "z"]
    assert [reader for reader, _ in found] == readers * times
    assert len({fingerprint(value) for _, value in found}) == different


def test_readers_may_differ(mesh: Any, monkeypatch: Any) -> None:
    of = mesh({"a": {}, "b": {}, "s": {}, "z": {}}, seed=4)
    of.flow("labels", ["a", "b"], objective="ce")
    of.consensus("c", "mean")
    of.flow(["a", "b"], "c", refresh="2 steps")
    of.flow("c", "s", objective="kl", refresh="epoch")
    of.flow("c", "z", objective="kl")
    assert [reader for reader, _ in formed(of, monkeypatch)] == [*"sz", *"s", *"z", *"sz", *"z"]  # at 2, 3, 4, 6, 8


def test_in_a_circle_its_sources_publish_as_often(mesh: Any) -> None:
    of = mesh(["a", "b"], seed=3)
    of.flow("labels", ["a", "b"], objective="ce")
    of.consensus("c", "mean")
    of.flow(["a", "b"], "c")
    of.flow("c", ["a", "b"], objective="kl", refresh="epoch")
    plan = of.plan()
    assert {edge.refresh for edge in plan.consensus["c"].inputs} == {"epoch"}
    again = make_plan(MeshSpec.model_validate(plan.resolved().dump()), registry())
    assert again.resolved() == plan.resolved() and again.consensus["c"].renewed == {"a": "epoch", "b": "epoch"}
    plain = mesh(["a", "b"], seed=3)
    plain.flow("labels", ["a", "b"], objective="ce")
    plain.consensus("c", "mean")
    plain.flow(["a", "b"], "c", refresh="epoch")
    plain.flow("c", ["a", "b"], objective="kl")
    assert outcome(of.run(backend="inline").summary) == outcome(plain.run(backend="inline").summary)


def test_of_frozen_sources_a_rule_by_time_is_asked_again(mesh: Any) -> None:
    plain, each, epochs = (
        outcome(frozen(mesh, refresh, "sharper").run(backend="inline").summary)[0]["s"]
        for refresh in (None, "step", "epoch")
    )
    assert len({plain, each, epochs}) == 3
    live = mesh({"a": FROZEN, "b": FROZEN, "s": {}, "z": {}}, seed=4)
    live.consensus("c", "sharper")
    live.flow(["a", "b"], "c", refresh="step")
    live.flow("c", ["s", "z"], objective="kl")
    assert outcome(live.run(backend="inline").summary)[0]["s"] == each


def test_a_rule_with_a_state_is_asked_once_a_period(mesh: Any) -> None:
    counts = {
        refresh: frozen(mesh, refresh, "counted").run(backend="inline").summary["consensus"]["c"]["report"]["rows"]
        for refresh in (None, "epoch", "step")
    }
    assert counts == {None: 90, "epoch": 3 * 90 * 2, "step": 3 * 90 * 2}  # s and z train one after the other


MESHES = {
    "epoch": lambda mesh, **more: made(mesh, "epoch", **more),
    "4 steps": lambda mesh, **more: made(mesh, "4 steps", **more),
    "once": lambda mesh, **more: made(mesh, "once", **more),
    "frozen": lambda mesh, **more: frozen(mesh, "2 steps", "sharper", **more),
    "step": lambda mesh, **more: frozen(mesh, "step", "sharper", **more),
    "counted": lambda mesh, **more: made(mesh, "epoch", rule="counted", **more),
    "rounds": rounds,
    "begins": lambda mesh, **more: rounds(mesh, publishes=False, **more),
}


@pytest.mark.parametrize("name", MESHES)
def test_placement_changes_nothing(mesh: Any, name: str) -> None:
    apart = {"one": ["a"], "two": ["b", "s", "z"]} if name == "counted" else "spread"
    assert outcome(MESHES[name](mesh, placement=apart).run(backend="inline").summary) == outcome(
        MESHES[name](mesh).run(backend="inline").summary
    )


BETWEEN = {"train": {"epochs": 4, "evaluate_every": 1}}
BROKEN = {
    "4 steps": lambda mesh: made(mesh, "4 steps", sources="3 steps", **BETWEEN),
    "once": lambda mesh: made(mesh, "once", **BETWEEN),
    "counted": lambda mesh: made(mesh, "5 steps", rule="counted", **BETWEEN),
    "begins": lambda mesh: rounds(mesh, publishes=False),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(mesh: Any, name: str, broken_off: Any) -> None:
    expected = outcome(BROKEN[name](mesh).run(backend="inline").summary)
    for summary in broken_off(lambda: BROKEN[name](mesh)):
        assert outcome(summary) == expected


def circle(mesh: Any) -> kdmesh.Mesh:
    of: kdmesh.Mesh = made(mesh, "epoch", sources="step")
    return of


def nested(mesh: Any) -> kdmesh.Mesh:
    of: kdmesh.Mesh = mesh({"a": FROZEN, "b": FROZEN, "s": {}})
    of.consensus("c", "mean")
    of.consensus("outer", "mean")
    of.flow(["a", "b"], "c")
    of.flow("c", "outer", refresh="epoch")
    of.flow("outer", "s", objective="kl")
    return of


def differing(mesh: Any, rule: str, one: str, other: str | None) -> kdmesh.Mesh:
    of: kdmesh.Mesh = mesh({"a": FROZEN, "b": FROZEN, "s": {}, "z": {}})
    of.consensus("c", rule)
    of.flow(["a", "b"], "c")
    of.flow("c", "s", objective="kl", refresh=one)
    of.flow("c", "z", objective="kl", **({} if other is None else {"refresh": other}))
    return of


def loss(mesh: Any) -> kdmesh.Mesh:
    of: kdmesh.Mesh = mesh({"a": FROZEN, "b": FROZEN, "s": {}})
    of.consensus("c", "mean", space="loss")
    of.flow(["a", "b"], "c")
    of.flow("c", "s", objective="kl", refresh="epoch")
    return of


def stale(mesh: Any) -> kdmesh.Mesh:
    of = made(mesh, None)
    of.flow("c", "s", objective="mse", stale="recorded")
    return of


REFUSED = {
    "live sources": (circle, "a answers each batch anew, so that nothing of c can be kept", "flows.2.refresh"),
    "between consensus nodes": (nested, "c -> outer is read by no agent", "flows.1.refresh"),
    "the same values": (
        lambda mesh: frozen(mesh, "epoch", "mean"),
        "c would be made anew of the same values",
        "flows.1.refresh",
    ),
    "each step of the same values": (
        lambda mesh: made(mesh, "step"),
        "c would be made anew of the same values",
        "flows.2.refresh",
    ),
    "a shared state": (
        lambda mesh: differing(mesh, "counted", "epoch", "2 steps"),
        "what c says is shared by c -> s and c -> z, which want it made anew at different times: epoch and 2 steps",
        "flows.2.refresh",
    ),
    "a step and a period": (
        lambda mesh: differing(mesh, "sharper", "step", None),
        "made anew at different times: step and as its sources publish",
        "flows.2.refresh",
    ),
    "losses of a batch": (loss, "in space loss c weighs its sources by the losses of each batch", "flows.1.refresh"),
    "rounds": (
        lambda mesh: made(mesh, "round"),
        "`refresh: round` needs a program with rounds",
        "flows.2.refresh",
    ),
    "stale": (
        stale,
        "`stale` stands on flows that leave an agent, not on c",
        "flows.3",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(mesh: Any, case: str) -> None:
    make, said, where = REFUSED[case]
    of = make(mesh)
    with pytest.raises(MeshError, match=said) as error:
        of.run(backend="inline")
    assert error.value.where == where and error.value.instead
