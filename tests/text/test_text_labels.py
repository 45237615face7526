"""Texts with several labels, or with values: whole runs, resumed ones, and what is refused before one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import save
from text_meshes import classified, labelled, rows

import kdmesh
from kdmesh.engine.check import check, examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.engine.teach import Teaching
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

TASKS = ["multi_label", "regression"]
METRICS = {
    "multi_label": ["mean_average_precision", "loss", "micro_f1", "macro_f1"],
    "regression": ["r2", "mse", "mae"],
}


def refused(mesh: dict[str, Any]) -> MeshError:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(mesh), registry()))
    return caught.value


def test_a_model_learns_several_labels_and_the_folder_tells_them(tmp_path: Path) -> None:
    """By-column metrics, early stopping, the median of teachers; the card prints the labels that hold."""
    mesh = labelled(tmp_path, "multi_label", metrics=[{"micro_f1": {"by": "domain"}}])
    mesh["connect"][0]["ensemble"]["consensus"] = "median"
    mesh["train"] |= {"epochs": 15, "early_stopping": {"metric": "mean_average_precision"}}
    mesh["data"]["validation"] = 2
    error = refused(mesh)
    assert error.where == "train.early_stopping.metric" and "not defined on validation: no row has" in error.what
    del mesh["data"]["validation"]
    mesh["train"] |= {"early_stopping": {}, "evaluate_every": 5}
    result = kdmesh.Mesh(**mesh).run(backend="inline", out=tmp_path / "runs")
    found = result["t1"].metrics["test"]
    assert found["mean_average_precision"] > 0.8 and found["micro_f1"] > 0.6
    assert set(found["micro_f1_by_domain"]["values"]) == {"animal", "colour", "number"}
    (node,) = result.summary["consensus"].values()
    assert node["metrics"]["test"]["mean_average_precision"] > 0.4
    folder = result.folder / "agents" / "t1"
    code = (folder / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    said: list[Any] = []
    exec(code.replace('"t1"', repr(str(folder))).replace("A text.", "the cat"), {"print": said.append})
    logits = kdmesh.load(folder)(["the cat"])[0]
    assert said == [[name for name, logit in zip(("animal", "colour"), logits.tolist(), strict=True) if logit > 0]]
    assert "animal" in said[0]


@pytest.mark.parametrize("task", TASKS)
def test_labels_and_values_are_learned_and_a_broken_off_run_goes_on_to_the_same(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdmesh.engine.teach.SECONDS", 0.0)
    train = {"epochs": 1, "batch_size": 8}
    spec = parse(labelled(tmp_path, task, metrics=[{METRICS[task][-1]: {"by": "domain"}}], train=train))
    noted, steps, last = Teaching._note, 0, 0

    class Killed(BaseException):
        """The process is gone."""

    def note(self: Any, *args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == last:
            raise Killed
        return noted(self, *args)

    def run(**more: Any) -> dict[str, Any]:
        summary, _, _ = run_once(Request(spec, "inline", checkpoint_seconds=0, **more))
        return {name: (one["metrics"], one["weights_sha256"]) for name, one in summary["agents"].items()}

    monkeypatch.setattr(Teaching, "_note", note)
    whole = run(out=tmp_path / "whole")
    figures = whole["s"][0]["test"]
    by_domain = figures[f"{METRICS[task][-1]}_by_domain"]
    assert set(by_domain["rows"]) == {"animal", "colour", "number"}
    if task == "regression":  # a mean over samples
        values, counts = by_domain["values"], by_domain["rows"]
        mean = sum(values[name] * count for name, count in counts.items()) / sum(counts.values())
        assert figures["mae"] == pytest.approx(mean, rel=1e-5)
    last, steps = steps - 2, 0
    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path / "broken")
    (folder,) = (tmp_path / "broken").glob("*/*")
    last = 0
    assert run(resume=folder) == whole


@pytest.mark.parametrize("task", TASKS)
def test_a_check_says_what_is_learned_and_by_what_it_is_measured(task: str, tmp_path: Path) -> None:
    plan = make_plan(parse(labelled(tmp_path, task)), registry())
    said = "\n".join(check(plan))
    assert f"data: 90 texts, 2 {plan.task.labels}" in said and f"{plan.task.labels}: " in said
    assert [ref.key for ref in plan.metrics] == METRICS[task]


@pytest.mark.parametrize("task", TASKS)
def test_a_head_of_another_number_of_outputs_is_refused(task: str, tmp_path: Path) -> None:
    save(tmp_path / "three", task, labels=["LABEL_0", "LABEL_1", "LABEL_2"])
    mesh = labelled(tmp_path, task)
    mesh["agents"]["t1"] = {"model": {"hf": {"path": str(tmp_path / "three"), "max_length": 48}}, "update": "frozen"}
    error = refused(mesh)
    assert error.where == "agents.t1.model.hf.path" and "as many outputs" in error.instead
    assert "shape (3,), where this model has (2,)" in error.what


@pytest.mark.parametrize(
    ("task", "change", "where", "what"),
    [
        ("multi_label", {"task": "classification"}, "task", "learns classes, and the labels of these data are indic"),
        ("multi_label", {"task": "regression"}, "task", "learns values, and the labels of these data are indicators"),
        ("regression", {"task": "multi_label"}, "task", "learns indicators, and the labels of these data are values"),
        ("regression", {"text": {"pack": True}}, "text.pack", "`pack` is for task: language_modelling"),
    ],
)
def test_what_does_not_fit_the_labels_is_refused(
    task: str, change: dict[str, Any], where: str, what: str, tmp_path: Path
) -> None:
    mesh = {**labelled(tmp_path, task), **change}
    if "task" in change:
        mesh["connect"] = []
    error = refused(mesh)
    assert error.where.endswith(where) and what in error.what and error.instead


@pytest.mark.parametrize(("task", "field"), [("multi_label", "indicators"), ("regression", "values")])
def test_texts_without_labels_say_how_to_name_them(task: str, field: str, tmp_path: Path) -> None:
    mesh = labelled(tmp_path, task, connect=[])
    del mesh["data"]["dataset"]["text"][field]
    error = refused(mesh)
    assert error.where == "data.dataset" and f"{field}: [COLUMN, ...]" in error.instead


def test_classes_that_are_numbers_are_exported_and_read_again(tmp_path: Path) -> None:
    lines = [
        {"text": row["text"], "label": sorted(row["label"] for row in rows(3)).index(row["label"])} for row in rows(30)
    ]
    path = tmp_path / "numbers.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    result = kdmesh.Mesh(**classified(path, train={"steps": 1})).run(backend="inline", out=tmp_path / "runs")
    assert not result.summary["agents"]["s"]["export"]["problem"]
    folder = result.folder / "agents" / "s"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "id2label" in config and kdmesh.load(folder)(["the cat"]).shape == torch.Size([1, 3])
