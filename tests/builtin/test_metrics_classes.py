"""Metrics of classes against scikit-learn, and what they say where they are not defined."""

from __future__ import annotations

import json

import pytest
import torch
from sklearn import metrics as known
from torch.nn import functional as F

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.metrics import UNDEFINED, measure
from kdmesh.metrics import (
    AUROC,
    Accuracy,
    Answers,
    BalancedAccuracy,
    ConfusionMatrix,
    Loss,
    MacroF1,
    PerClassAccuracy,
)
from kdmesh.objectives import CrossEntropy
from kdmesh.plugins import registry
from kdmesh.report.tables import final_table
from kdmesh.signals.lazy import FactoredLogits
from kdmesh.spec import MeshSpec


def drawn(classes: int, rows: int = 200, seed: int = 0, skew: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits in steps, so that some tie, and labels, of which some classes are rare."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.arange(1.0, classes + 1) ** skew, rows, replacement=True, generator=generator)
    scores = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    scores[torch.arange(rows), y] += 0.7
    return (scores * 2).round() / 2, y


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_they_are_those_of_scikit_learn(classes, seed):
    scores, y = drawn(classes, seed=seed, skew=2.0)
    p, guess = scores.softmax(1), scores.argmax(1)
    found = measure(
        {"b": BalancedAccuracy(), "f": MacroF1(), "m": ConfusionMatrix(), "c": PerClassAccuracy()}, scores, y
    )
    assert found["b"] == pytest.approx(known.balanced_accuracy_score(y, guess), abs=1e-12)
    assert found["f"] == pytest.approx(known.f1_score(y, guess, average="macro"), abs=1e-12)
    assert found["m"] == known.confusion_matrix(y, guess, labels=range(classes)).tolist()
    recalls = known.recall_score(y, guess, average=None, labels=range(classes), zero_division=float("nan"))
    assert found["c"] == [pytest.approx(recall, abs=1e-12) if recall == recall else None for recall in recalls.tolist()]
    assert set(y.tolist()) == set(range(classes))
    expected = known.roc_auc_score(y, p[:, 1] if classes == 2 else p, multi_class="ovr")
    assert measure({"a": AUROC()}, p, y, probs=True)["a"] == pytest.approx(expected, abs=1e-12)
    assert measure({"l": Loss()}, p, y, probs=True)["l"] == pytest.approx(known.log_loss(y, p), abs=1e-12)


def test_classes_that_no_label_has_do_not_count_in_a_mean_of_recalls_but_answers_with_them_do_in_f1():
    scores, y = drawn(5)
    kept = y < 3
    scores, y = scores[kept], y[kept]
    guess = scores.argmax(1)
    found = measure({"b": BalancedAccuracy(), "f": MacroF1(), "c": PerClassAccuracy()}, scores, y)
    assert found["b"] == pytest.approx(known.recall_score(y, guess, average="macro", labels=[0, 1, 2]), abs=1e-12)
    assert found["f"] == pytest.approx(known.f1_score(y, guess, average="macro"), abs=1e-12)
    assert found["c"][3:] == [None, None]


def test_an_agent_of_some_classes_is_wrong_about_the_others():
    scores, y = drawn(3)
    answers = Answers(scores[:, [2, 0]], y, classes=[2, 0], total=3)
    made = ConfusionMatrix(), PerClassAccuracy()
    for metric in made:
        metric.update(answers)
    assert [row[1] for row in made[0].compute()] == [0, 0, 0]  # nobody is taken for class 1
    assert sum(map(sum, made[0].compute())) == len(y)
    assert made[1].compute()[1] == 0.0


def test_an_area_that_is_not_defined_says_why_and_leaves_the_other_figures():
    scores, y = drawn(3)
    found = measure({"accuracy": Accuracy(), "auroc": AUROC()}, scores[y < 2], y[y < 2])
    assert list(found) == ["accuracy", UNDEFINED] and found[UNDEFINED] == {"auroc": "class 2 has no row"}
    found = measure({"auroc": AUROC()}, scores[:, :2], y, classes=[0, 1], total=3)
    assert found == {UNDEFINED: {"auroc": "the answers have no column for some classes"}}


def test_a_run_reports_what_its_mesh_asks_for(tmp_path):
    asked = ["balanced_accuracy", "macro_f1", "auroc", "per_class_accuracy", "confusion_matrix"]
    mesh = kdmesh.Mesh(data="digits", metrics=asked, train={"epochs": 2, "early_stopping": {}})
    mesh.agent("t", {"mlp": {"hidden": [8]}})
    mesh.agent("s", {"mlp": {"hidden": [8]}})
    mesh.connect("ensemble", teachers=["t"], student="s")
    result = mesh.run(backend="inline", out=tmp_path)
    agents = json.loads((result.folder / "results.json").read_text())["runs"][0]["agents"]
    figures = agents["s"]["metrics"]["test"]
    assert list(figures) == ["accuracy", "loss", "ece", *asked]
    matrix = torch.tensor(figures["confusion_matrix"])
    assert matrix.shape == (10, 10)
    assert (matrix.diag().sum() / matrix.sum()).item() == pytest.approx(figures["accuracy"])
    events = [json.loads(line) for line in (result.folder / "events.jsonl").read_text().splitlines()]
    told = [event["metrics"] for event in events if event["event"] == "evaluated"]
    assert told and all(list(one) == ["accuracy", "loss", "ece", *asked[:3]] for one in told)
    rows = (result.folder / "results.csv").read_text()
    assert "macro_f1" in rows and "confusion_matrix" not in rows
    shown = "\n".join(final_table(result.summary).lines(200))
    assert "balanced" in shown and "confusion_matrix: lists, for every agent in results.json" in shown


def test_class_weights_and_label_smoothing_of_the_task_are_those_of_the_loss_of_labels():
    weights = [1.0, 2.5, 0.0]
    config = {"label_smoothing": 0.1, "class_weights": weights}
    fields = {"task": {"classification": config}, "data": "digits", "agents": {"a": {"model": "mlp"}}}
    (edge,) = make_plan(MeshSpec.model_validate(fields), registry()).edges
    assert edge.objective.model_dump() == {"ce": config}
    scores, y = (value.requires_grad_() if value.is_floating_point() else value for value in drawn(3))
    scores.data[y == 2] = float("nan")  # of a class of weight 0
    loss = CrossEntropy(**config)(scores, y, form="labels", weights=None)
    kept = y != 2
    each = F.cross_entropy(scores[kept], y[kept], label_smoothing=0.1, reduction="none")
    expected = (each * torch.tensor(weights, dtype=torch.float64)[y[kept]]).sum() / len(y)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient.isfinite().all() and not gradient[~kept].any()


def test_class_weights_that_are_not_one_a_class_are_refused():
    mesh = kdmesh.Mesh(task={"classification": {"class_weights": [1.0, 2.0]}}, data="digits", train={"epochs": 1})
    mesh.agent("a", "mlp")
    with pytest.raises(kdmesh.MeshError, match="2 weights for 10 classes"):
        mesh.run(backend="inline")


def test_class_weights_of_wide_lazy_logits_are_those_of_made_ones():
    _, y = drawn(3)
    hidden, layer = torch.randn(len(y), 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    loss = CrossEntropy(class_weights=[1.0, 2.5, 0.5])
    lazy, made = FactoredLogits(hidden, layer, None), hidden @ layer.T
    assert loss(lazy, y, form="labels").item() == pytest.approx(loss(made, y, form="labels").item(), abs=1e-12)


def asking(metric, data, splits=None):
    mesh = kdmesh.Mesh(data=data, splits=splits or {}, metrics=[metric], train={"epochs": 1})
    mesh.agent("s", {"mlp": {"hidden": [8]}})
    mesh.flow("labels", "s", objective="ce")
    return mesh


def checked(made):
    return examine(made.plan(), made._modules, made.table)


def test_a_metric_that_these_data_cannot_have_is_refused():
    with pytest.raises(MeshError, match=r"counts the characters .* it would never be reported") as error:
        asking("bits_per_character", "digits").plan()
    assert error.value.where == "metrics.0"
    x = torch.randn(60, 4)
    checked(asking("macro_f1", kdmesh.data((x, x.argmax(1)))))
    with pytest.raises(MeshError, match="no samples are held out to measure on") as error:
        checked(asking("macro_f1", kdmesh.data((x, x.argmax(1))), {"test": 0, "validation": 0}))
    assert error.value.where == "metrics"
