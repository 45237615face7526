"""Early stopping: by validation only, with the best weights kept, also while others still learn from the agent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kdmesh.contracts.events import Evaluated, Event, StageFinished
from kdmesh.errors import MeshError

WILD = {"epochs": 30, "optimizer": {"sgd": {"lr": 30.0}}, "early_stopping": {"patience": 2}}


def test_it_stops_and_restores_the_best_weights(mesh: Any, opened: Any) -> None:
    made = mesh(["s"], train=WILD)
    made.flow("labels", "s", objective="ce")
    run, hosts = opened(made)
    told: list[Event] = []
    run.events.listeners.append(told.append)
    summary = run.execute()
    measured = [event for event in told if isinstance(event, Evaluated) and event.epoch]
    losses = [event.metrics["loss"] for event in measured]
    best = min(losses)
    assert len(losses) == losses.index(best) + 1 + 2 < 30
    assert summary["agents"]["s"]["metrics"]["validation"]["loss"] == pytest.approx(best)
    assert {event.stream for event in measured} == {"validation"}
    assert next(event for event in told if isinstance(event, StageFinished)).reason == "stopped early"
    validation = hosts["host0"].loader.shard("validation", "s", torch.device("cpu"))
    with torch.no_grad():
        logits = hosts["host0"].agents["s"].module(validation.x)
    assert F.cross_entropy(logits, validation.truth).item() == pytest.approx(best)


def test_the_best_weights_are_kept_without_stopping_by_any_metric(mesh: Any, opened: Any) -> None:
    made = mesh(["s"], train={"epochs": 12, "optimizer": {"sgd": {"lr": 3.0}}, "keep_best": {"metric": "ece"}})
    made.flow("labels", "s", objective="ce")
    run, _ = opened(made)
    told: list[Event] = []
    run.events.listeners.append(told.append)
    summary = run.execute()
    errors = [event.metrics["ece"] for event in told if isinstance(event, Evaluated) and event.epoch]
    assert len(errors) == 12 and errors.index(min(errors)) < 11
    assert summary["agents"]["s"]["metrics"]["validation"]["ece"] == min(errors)
    assert next(event for event in told if isinstance(event, StageFinished)).reason != "stopped early"


@pytest.mark.parametrize(
    ("agents", "where"), [({"s": {}}, "train"), ({"s": {"train": {"keep_best": {}}}}, "agents.s.train")]
)
def test_what_stops_early_keeps_the_best_anyway(mesh: Any, agents: dict[str, Any], where: str) -> None:
    made = mesh(agents, train={"early_stopping": {}, **({"keep_best": {}} if where == "train" else {})})
    made.flow("labels", "s", objective="ce")
    with pytest.raises(MeshError, match="`keep_best` has no effect beside `early_stopping`") as error:
        made.plan()
    assert error.value.where == f"{where}.keep_best"


def test_test_data_are_read_once_at_the_end(mesh: Any, opened: Any) -> None:
    made = mesh(["s"], train=WILD)
    made.flow("labels", "s", objective="ce")
    run, _ = opened(made)
    told: list[Event] = []
    run.events.listeners.append(told.append)
    run.execute()
    kinds = [(event.kind, getattr(event, "stream", None)) for event in told]
    assert kinds.count(("evaluated", "test")) == 1
    assert kinds.index(("evaluated", "test")) > kinds.index(("stage_finished", None))


def test_a_stopped_agent_serves_the_others_with_its_best_weights(mesh: Any, opened: Any) -> None:
    made = mesh({"a": {"train": WILD}, "b": {"train": {"epochs": 30}}})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", objective="kl", refresh="step")
    run, hosts = opened(made)
    host = hosts["host0"]
    served: list[str] = []
    begin = host.begin

    def noting(stage: str, key: str, ends: dict[str, int], *more: Any) -> None:
        if "a" not in ends:
            served.append(host.describe()["a"]["weights_sha256"])
        begin(stage, key, ends, *more)

    host.begin = noting
    summary = run.execute()
    assert served == [summary["agents"]["a"]["weights_sha256"]]
    assert summary["agents"]["b"]["updates"] == 90 > summary["agents"]["a"]["updates"]


@pytest.mark.parametrize("setting", [{"early_stopping": {}}, {"keep_best": {}}, {"evaluate_every": 2}])
def test_a_validation_split_is_needed(mesh: Any, setting: dict[str, Any]) -> None:
    data = {"dataset": "digits", "validation": 0, "train": 64}
    made = mesh(["s"], train=setting, data=data)
    made.flow("labels", "s", objective="ce")
    with pytest.raises(MeshError, match="needs a validation split"):
        made.run(backend="inline")
