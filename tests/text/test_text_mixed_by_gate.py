"""Given batches among written ones where a gate says so: equal bits everywhere, what it is told, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_text_rollouts import SUMS, calls, elsewhere, mesh, outcome  # noqa: F401  calls is a fixture
from text_runs import run

from kdmesh.backends import Session
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.gates import Gate
from kdmesh.graph.planner import make_plan
from kdmesh.offers import Config, GateOffer
from kdmesh.plugins import fault, registry
from kdmesh.spec.read import parse

HERE = __name__
ASKED: list[dict[str, Any]] = []


class Steps(Config):
    """The steps in which it is open."""

    open: list[int]


class Listed(Gate):
    def __init__(self, open: list[int]) -> None:
        super().__init__()
        self.open = open

    def forward(self, *, step: int) -> bool:
        ASKED.append({"step": step})
        return step in self.open


class Moody(Gate):
    """Counts how often it was asked, looks at the last figures, and draws."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, *, metrics: dict[str, float], measured_step: int | None, epoch: int) -> bool:
        ASKED.append({"metrics": metrics, "measured_step": measured_step, "epoch": epoch})
        self.count += 1
        least = 0.3 + 0.1 * (int(self.count) % 3) + 0.05 * (round(metrics.get("loss", 0) * 1e5) % 5)
        return bool(torch.rand(()) < least)


class Wrong(Gate):
    def forward(self, *, step: int) -> Any:
        return 3


GATES = [
    GateOffer("listed", f"{HERE}:Listed", Steps, needs=("step",)),
    GateOffer("moody", f"{HERE}:Moody", needs=("metrics", "measured_step", "epoch")),
    GateOffer("wrong", f"{HERE}:Wrong", needs=("step",)),
    GateOffer("of_rows", f"{HERE}:Wrong", needs=("step",), rows=True),
    GateOffer("of_batches", f"{HERE}:Wrong", needs=("own",)),
]


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for offer in GATES:
        assert not fault(offer.kind, offer)
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)
    ASKED.clear()
    yield


def mixed(gate: Any, **more: Any) -> dict[str, Any]:
    """Two students on what one of them writes, or on given answers where the gate is shut."""
    fields = mesh(mix={"of": "train", "gate": gate}, **more)
    return {
        **fields,
        "data": {**SUMS, "validation": 8},
        "train": {**fields["train"], "epochs": 3, "evaluate_every": 1},
    }


SHARE = {"adaptive_share": {"start": 0.4, "increase": 0.3, "tolerance": 0.0}}
MESHES = {
    "each step": mixed("moody"),
    "several steps": mixed("moody", refresh="3 steps"),
    "an epoch": mixed("moody", refresh="epoch"),
    "accumulated": {
        **mixed("moody"),
        "train": {**mixed("moody")["train"], "batch_size": 4, "accumulate": 2},
    },
    "filtered": mixed("moody", keep=[{"pattern": {"match": "[0-4]"}}]),
}


@pytest.mark.parametrize(("name", "whole", "broken"), elsewhere(MESHES))
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    name: str,
    whole: str,
    broken: str,
    tmp_path: Path,
    calls: dict[str, int],  # noqa: F811
) -> None:
    expected, made = outcome(MESHES[name], whole), calls["made"]
    calls.update(made=0, last=made * 3 // 5 + 1)
    with pytest.raises(KeyboardInterrupt):
        outcome(MESHES[name], broken, out=tmp_path)
    calls.update(made=0, last=0)
    (folder,) = tmp_path.glob("*/*")
    assert outcome(MESHES[name], broken, resume=folder) == expected
    assert 0 < calls["made"] < made


@pytest.mark.ray
def test_on_ray_they_are_the_same(ray_session: Session) -> None:
    pytest.importorskip("kdmesh_lm")
    fields = mixed(SHARE, refresh="2 steps")
    expected = outcome(fields)
    assert outcome(fields, "spread", session=ray_session) == expected


def test_the_gate_says_which_batches_are_written() -> None:
    summary = run(mixed({"listed": {"open": [0, 1, 7]}}))
    assert summary["agents"]["s"]["gates"]["batches of rollouts"] == {
        "gate": "listed",
        "asked": 15,
        "shut": 12,
        "kept": 0.2,
    }
    assert [one["step"] for one in ASKED[-15:]] == list(range(15))  # once a step, after the trial
    assert summary["streams"]["rollouts"]["written"] == 5 + 5 + 5
    every = run(mixed({"listed": {"open": list(range(15))}}))["agents"]["s"]["weights_sha256"]
    fields = mixed({"listed": {"open": []}})
    fields["streams"]["rollouts"].pop("mix")
    assert run(fields)["agents"]["s"]["weights_sha256"] == every  # all written
    fields = mixed({"listed": {"open": []}})
    never = run(fields)["agents"]["s"]["weights_sha256"]
    fields["streams"]["rollouts"]["mix"] = {"of": "train", "share": 1 - 1e-9}
    assert run(fields)["agents"]["s"]["weights_sha256"] == never  # none is


def test_it_is_told_the_figures_of_who_writes() -> None:
    run(mixed("moody", refresh="2 steps"))
    told = ASKED[-15:]  # after the trial
    assert [one["measured_step"] for one in told] == [None] * 6 + [5] * 4 + [10] * 5  # two steps are written at once
    assert [one["metrics"].get("loss") is None for one in told] == [True] * 6 + [False] * 9
    assert len({one["metrics"].get("loss") for one in told}) == 3
    assert [one["epoch"] for one in told] == [0] * 5 + [1] * 5 + [2] * 5


def without_measures() -> dict[str, Any]:
    fields = mixed("moody")
    del fields["train"]["evaluate_every"]
    return fields


def of_a_frozen_one() -> dict[str, Any]:
    return mixed("moody", generated_by="t")


REFUSED = [
    (mesh(mix={"of": "train"}), "streams.rollouts.mix", "neither of `share` and `gate`"),
    (mesh(mix={"of": "train", "share": 0.5, "gate": "moody"}), "streams.rollouts.mix", "both of `share` and `gate`"),
    (mixed("modest"), "streams.rollouts.mix.gate", "unknown gate 'modest'"),
    (mixed({"listed": {"shut": [1]}}), "streams.rollouts.mix.gate.listed.shut", "unknown field"),
    (mixed({"moody": {"of": "t"}}), "streams.rollouts.mix.gate.moody.of", "looks at no other agent"),
    (mixed("of_rows"), "streams.rollouts.mix.gate", "weighs rows of a batch"),
    (mixed("of_batches"), "streams.rollouts.mix.gate", "needs own of a batch"),
    (
        mixed({"listed": {"open": [1]}}, refresh="once", generated_by="t"),
        "streams.rollouts.mix.gate",
        "written once, for all steps",
    ),
    (without_measures(), "streams.rollouts.mix.gate", "s, which is not measured while it trains"),
    (of_a_frozen_one(), "streams.rollouts.mix.gate", "metrics of t, which does not train"),
    ({**mixed("moody"), "data": {**SUMS, "validation": 0}}, "data.validation", "needs a validation split"),
]


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_cannot_mix_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where and what in caught.value.what


def test_a_gate_that_says_nothing_is_named_with_its_stream() -> None:
    with pytest.raises(MeshError, match=r"gate 'wrong' .*at step 0 about the batches of rollouts") as caught:
        run(mixed("wrong"))
    assert caught.value.where == "streams.rollouts.mix.gate"
