"""A rule that weighs its sources by their errors on validation: what it is given, when, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import kdmesh
from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.hosts import rules
from kdmesh.hosts.packing import unpack
from kdmesh.hosts.publications import Key
from kdmesh.spec.read import parse

RULE = "inverse_variance"


@pytest.fixture
def values() -> Any:
    """Samples with two values each, and noise."""

    def points(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = torch.Generator().manual_seed(seed)
        x = torch.randn(n, 8, generator=drawn)
        return x, x[:, :2] - x[:, 2:4] + torch.randn(n, 2, generator=drawn) / 4

    return kdmesh.data(points(90, 0), points(40, 1), points(40, 2))


def peers(mesh: Any, values: Any, refresh: str = "epoch", **fields: Any) -> Any:
    """Three peers, two of whom a frozen one joins, teach each other by the consensus of the others."""
    frozen = {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}
    made = mesh({"a": {}, "b": {}, "f": frozen}, data=values, task="regression", **fields)
    made.consensus("c", RULE, include_self=False)
    made.flow(["a", "b"], "c", refresh=refresh)
    made.flow("f", "c")
    made.flow("labels", ["a", "b"], objective="mse")
    made.flow("c", ["a", "b"], objective="mse")
    return made


def told(summary: dict[str, Any]) -> dict[str, Any]:
    agents = {name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()}
    return {"agents": agents, "consensus": summary["consensus"]["c"]["metrics"]}


def test_a_rule_is_given_the_errors_of_who_has_published(mesh: Any, opened: Any, values: Any) -> None:
    """Those of validation as the source was when it published; the summary says that they were used."""
    run, hosts = opened(peers(mesh, values))
    summary = run.execute()
    (host,) = hosts.values()
    node = run.plan.consensus["c"]
    errors = rules.errors(node, rules.published(host, node))
    assert errors is not None and errors.shape == (3, 2) and errors.dtype == torch.float64
    for number, name in enumerate("abf"):  # the last epoch's publication: as all end
        assert errors[number].mean() == pytest.approx(summary["agents"][name]["metrics"]["validation"]["mse"])
    assert any("weighs its sources by their errors on validation" in note for note in summary["notes"])


def test_labels_of_test_do_not_count_and_those_of_validation_do(mesh: Any, hashes: Any, values: Any) -> None:
    whole = hashes(peers(mesh, values))
    values.y[values.official["test"]] += 5
    assert hashes(peers(mesh, values)) == whole
    values.y[values.official["validation"], 0] += 5
    assert hashes(peers(mesh, values)) != whole


class Killed(BaseException):
    """The process is gone."""


def test_the_same_spread_and_however_it_breaks_off(
    mesh: Any, values: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = InlineBackend.call

    def run(last: int, placement: str = "together", **more: Any) -> tuple[Any, int]:
        calls = 0

        def call(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == last:
                raise Killed
            return inner(self, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(InlineBackend, "call", call)
            spec = parse(peers(mesh, values, placement=placement)._fields)
            return run_once(Request(spec, "inline", table=values, checkpoint_seconds=0, **more))[0], calls

    whole, calls = run(0)
    assert told(run(0, "spread")[0]) == told(whole)
    for last in (calls // 3, 2 * calls // 3):
        with suppress(Killed, KeyboardInterrupt):
            run(last, out=tmp_path / str(last))
        (folder,) = (tmp_path / str(last)).glob("*/*")
        assert not (folder / "summary.json").exists()
        assert told(run(0, resume=folder)[0]) == told(whole), last


@pytest.mark.ray
def test_the_same_on_ray(mesh: Any, values: Any, ray_session: Session) -> None:
    found = []
    for session, placement in ((Session("inline"), "together"), (ray_session, "spread")):
        spec = parse(peers(mesh, values, placement=placement)._fields)
        found.append(told(run_once(Request(spec, table=values), session=session)[0]))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"refresh": "step"}, "flows.0", "a publishes nothing"),
        ({"stale": "snapshot"}, "flows.0", "a publishes nothing"),
        ({"task": "classification"}, "consensus.c.rule", "combines answers about values"),
        ({"nested": True}, "flows.2", "n is a consensus"),
    ],
)
def test_sources_without_errors_are_refused_when_planned(mesh: Any, change: Any, where: str, what: str) -> None:
    made = mesh(["a", "b", "s"], task=change.get("task", "regression"), data="diabetes")
    made.consensus("c", RULE)
    if "nested" in change:
        made.consensus("n", "mean")
    flow = {"refresh": "epoch", **{k: v for k, v in change.items() if k in ("refresh", "stale")}}
    made.flow("a", "n" if "nested" in change else "c", **flow)
    made.flow("b", "n" if "nested" in change else "c", **flow)
    if "nested" in change:
        made.flow("n", "c")
    made.flow("labels", ["a", "b"], objective="ce" if "task" in change else "mse")
    made.flow("c", "s", objective="mse")
    with pytest.raises(kdmesh.MeshError, match=what) as error:
        made.plan()
    assert error.value.where == where


def test_without_validation_it_is_refused_when_checked(mesh: Any) -> None:
    made = peers(mesh, {"dataset": "diabetes", "validation": 0})
    with pytest.raises(kdmesh.MeshError, match="there is no such split") as error:
        examine(made.plan())
    assert error.value.where == "data.validation"


def test_the_worst_of_classifiers_is_left_out(mesh: Any, opened: Any) -> None:
    """By the squared errors of its probabilities."""
    frozen = {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}
    made = mesh({"a": {}, "b": {}, "f": frozen, "s": {}}, train={"epochs": 4, "batch_size": 32})
    made.consensus("c", "drop_worst")
    made.flow(["a", "b", "f"], "c")
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("c", "s", objective="kl")
    run, hosts = opened(made)
    run.execute()
    (host,) = hosts.values()
    node = run.plan.consensus["c"]
    errors = rules.errors(node, rules.published(host, node))
    assert errors is not None and errors.shape == (3, 3)
    kept = sorted(set(range(3)) - {int(errors.sum(1).argmax())})
    said = [host.publications.get(Key("abf"[number], "train")) for number in kept]
    first, second = (one.values.softmax(-1) for one in said if one is not None)
    whole = rules.stored(host, "c", "s", host.loader.shard("train", "s", torch.device("cpu")))
    assert whole is not None and torch.allclose(whole.value, (first + second) / 2, atol=1e-6)
    truth = torch.nn.functional.one_hot(host.loader.shard("validation", "a", torch.device("cpu")).truth)
    answers = run.backend.get([run.publisher.publication("a", "validation", [""])])[0]
    logits = next(iter(unpack({0: answers[Key("a", "validation")]}, torch.device("cpu")).values()))[0]
    assert torch.allclose(errors[0], (logits.double().softmax(-1) - truth).square().mean(0))
