"""A mesh that names the metric by which its agents are compared: everything that compares goes by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdmesh.api import Mesh
from kdmesh.checks import labels
from kdmesh.errors import MeshError, RunFailed
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.report.tables import final_table, seeds_table, verdict_table
from kdmesh.spec import MeshSpec

ENSEMBLE = {"teachers": ["a", "b"], "student": "s", "objective": "kl"}


def planned(**fields: Any) -> Any:
    made = {"data": "digits", "agents": {"a": {"model": "mlp"}}, **fields}
    return make_plan(MeshSpec.model_validate(made), registry())


def test_it_is_measured_and_watched_where_early_stopping_names_nothing() -> None:
    plan = planned(primary="macro_f1", train={"early_stopping": {}})
    assert plan.primary == "macro_f1" and [ref.name for ref in plan.metrics] == ["accuracy", "loss", "ece", "macro_f1"]
    assert plan.train("a").early_stopping.metric == "macro_f1"
    assert planned(train={"early_stopping": {}}).train("a").early_stopping.metric == "loss"
    assert planned(primary="macro_f1", train={"early_stopping": {"metric": "loss"}}).primary == "macro_f1"
    again = planned(**{**plan.resolved().dump(), "connect": []})
    assert again.primary == "macro_f1" and planned().primary == "accuracy"


def test_settings_are_those_of_the_metric_where_the_mesh_names_it() -> None:
    name, metrics = "recall_at_k", [{"recall_at_k": {"k": 2}}]
    plan = planned(task="ranking", data="digit_lists", metrics=metrics, primary=name)
    assert [ref.settings for ref in plan.metrics if ref.name == name] == [{"k": 2}]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"primary": "macro_ff"}, "unknown metric 'macro_ff'"),
        ({"primary": "r2"}, "'r2' is of values, and the labels of task classification are classes"),
        ({"primary": "confusion_matrix"}, "'confusion_matrix' is no single number"),
        ({"primary": "bits_per_character"}, "counts the characters"),
        ({"primary": "accuracy_by_kind", "metrics": [{"accuracy": {"by": "kind"}}]}, "by_kind' is no single number"),
    ],
)
def test_what_is_no_number_of_the_answers_is_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(MeshError, match=what) as error:
        planned(**fields)
    assert error.value.where == "primary"


def test_what_would_never_be_measured_is_refused(mesh: Any) -> None:
    made = mesh(["a"], primary="macro_f1", data={"dataset": "digits", "test": 0, "validation": 0})
    made.flow("labels", "a", objective="ce")
    with pytest.raises(MeshError, match="no samples are held out") as error:
        made.run(backend="inline")
    assert error.value.where == "primary"


@pytest.fixture
def made(mesh: Any) -> Mesh:
    """Two teachers and a student, compared by their loss, of which less is better."""
    one: Mesh = mesh(["a", "b", "s"], train={"epochs": 1, "early_stopping": {}}, primary="loss")
    one.connect("ensemble", **ENSEMBLE, labels=0.5)
    return one


def test_tables_differences_controls_and_verdicts_go_by_it(made: Mesh, tmp_path: Path) -> None:
    result = made.run(backend="inline", out=tmp_path, seeds=2, controls=True)
    table = json.loads((result.folder / "results.json").read_text()) if result.folder else {}
    assert (table["metric"], table["higher_is_better"]) == ("loss", False)
    for one in result.seeds:
        metrics = {name: agent["metrics"] for name, agent in one.summary["agents"].items()}
        best = min("ab", key=lambda name: metrics[name]["validation"]["loss"])
        assert one.summary["metric"] == "loss" and one.summary["best_teacher"] == best
        assert one.summary["controls"]["s"]["best_teacher"]["teacher"] == best
    seeds = table["over_seeds"]
    own = [one.summary["agents"]["s"]["metrics"]["test"]["loss"] for one in result.seeds]
    alone = [one.summary["controls"]["s"]["alone"]["test"]["loss"] for one in result.seeds]
    assert seeds["loss"]["s"]["mean"] == pytest.approx(sum(own) / 2)
    pair = seeds["differences"]["s"]["control alone"]
    assert pair["mean"] == pytest.approx((sum(own) - sum(alone)) / 2)
    assert pair["wins"] == sum(x < y for x, y in zip(own, alone, strict=True))
    shown = "\n".join(final_table(result.summary).lines(160))
    assert "loss: lower is better" in shown and "accuracy" in shown  # the task's own stands beside
    assert "minus its control's, paired by seed; lower is better" in "\n".join(verdict_table(seeds).lines(160))
    assert "test loss" in "\n".join(seeds_table(seeds).lines(160)) and "loss on test" in repr(result)


def test_gains_of_rounds_are_of_it(mesh: Any) -> None:
    streams = {"half": {"of": "train", "size": 40, "labels": False}}
    one = mesh(["s", "r"], streams=streams, primary="loss")
    one.connect("rounds", students=["s", "r"], rounds=2, stream="half")
    summary = one.run(backend="inline").summary
    last = summary["rounds"][-1]["metrics"]
    assert last["loss"].keys() == {"s", "r"} and "accuracy" not in last
    gain = summary["rounds"][0]["metrics"]["loss"]["s"] - last["loss"]["s"]
    assert last["gain"]["s"] - summary["rounds"][0]["metrics"]["gain"]["s"] == pytest.approx(gain)


def test_early_stopping_says_why_its_metric_is_not_defined(
    mesh: Any, table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.y[table.official["validation"]] = 0
    one = mesh(["a"], primary="auroc", train={"early_stopping": {}})
    one.flow("labels", "a", objective="ce")
    with pytest.raises(MeshError, match="auroc is not defined on validation: class 1 has no row") as error:
        one.run(backend="inline")
    assert error.value.where == "train.early_stopping.metric"
    monkeypatch.setattr(labels, "watched", lambda *given: None)  # as of labels that are not known before a model reads
    with pytest.raises(
        RunFailed, match=r"`early_stopping` of a watches auroc, which is not defined on validation: "
    ) as error:
        one.run(backend="inline")
    assert error.value.where == "agents.a.train.early_stopping.metric"
