"""Class weights: refused where they fit no class, and judged by what they ask for."""

import json

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

import kdmesh
from kdmesh.builtin.tasks.classification import Classification
from kdmesh.builtin.tasks.token_classification import TokenClassification
from kdmesh.cli import main
from kdmesh.engine.check import check, examine
from kdmesh.errors import MeshError
from kdmesh.objectives import CrossEntropy

Y = (torch.arange(20) % 10 == 0).long()  # one in ten


def test_a_wrong_number_is_named_with_its_place_and_the_order_of_classes(tmp_path, capsys):
    rows = "".join(f"{i},{'sick' if i % 3 else 'healthy'}\n" for i in range(60))
    (tmp_path / "data.csv").write_text(f"age,kind\n{rows}", encoding="utf-8")
    file = tmp_path / "m.yaml"
    file.write_text(
        "data: {dataset: {csv: {path: data.csv, label: kind}}}\ntask: {classification: {class_weights: [1, 2, 3]}}\n"
        "agents: {a: {model: mlp}, b: {model: mlp}}\nconnect: [{ensemble: {teachers: a, student: b}}]\n",
        encoding="utf-8",
    )
    assert main(["check", str(file)]) == 2
    said = capsys.readouterr().err
    assert "task.classification.class_weights: 3 weights for 2 classes" in said
    assert "in this order: healthy, sick" in said
    assert main(["check", str(file), "--set", "task.classification.class_weights=[1, 2]"]) == 0
    assert "classes: healthy, sick" in capsys.readouterr().out.splitlines()


def test_weights_of_nothing_are_refused():
    mesh = kdmesh.Mesh(data="digits", task={"classification": {"class_weights": [0, 0]}})
    mesh.agent("s", "mlp")
    mesh.flow("labels", "s", objective="ce")
    with pytest.raises(MeshError, match="every class has weight 0") as refused:
        mesh.plan()
    assert refused.value.where.startswith("task.classification.class_weights")


@pytest.mark.parametrize("task", [Classification, TokenClassification])
def test_chance_is_of_the_figure_that_the_weights_ask_for(task):
    assert task().chance(Y).metric == "accuracy"
    level = task(class_weights=[1, 9]).chance(Y)
    assert (level.metric, level.value) == ("balanced_accuracy", 0.5)
    assert task(class_weights=[1, 9]).chance(Y[:1]) is None


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_one_answer_for_all_is_at_chance_by_balanced_accuracy(classes):
    """A constant model is named, whatever the number of classes; one that is only less accurate is not."""

    class Always(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.arange(float(classes)))

        def forward(self, x):
            return self.bias.expand(len(x), -1)

    def notes(**fields):
        y = torch.arange(210) % classes
        x = torch.randn(210, 3, generator=torch.Generator().manual_seed(0))
        given = kdmesh.Mesh(
            data=kdmesh.data((x, y), test=(x + 1, y)), train={"steps": 1, "optimizer": {"sgd": {"lr": 1e-9}}}, **fields
        )
        given.agent("s", Always())
        given.flow("labels", "s", objective="ce")
        return given.run(backend="inline").summary["notes"]

    task = {"classification": {"class_weights": [1] * classes}}
    (found,) = [note for note in notes(task=task, metrics=["balanced_accuracy"]) if note.startswith("at chance")]
    assert f"no better on test than one class for all ({1 / classes:.4f}): s" in found


def test_a_flow_by_hand_that_does_not_have_the_tasks_settings_is_named():
    def notes(objective):
        mesh = kdmesh.Mesh(
            data="digits", task={"classification": {"label_smoothing": 0.1}}, train={"steps": 1, "batch_size": 8}
        )
        mesh.agent("s", {"mlp": {"hidden": []}})
        mesh.agent("t", {"mlp": {"hidden": []}})
        mesh.flow("labels", "s", objective=objective)
        mesh.flow("t", "s", objective="kl")
        return [note for note in check(mesh.plan()) if "label_smoothing" in note]

    (found,) = notes("ce")
    assert found.startswith("note: task.classification.label_smoothing has no effect on labels -> s, ")
    assert "`objective: {ce: {label_smoothing: 0.1}}`" in found
    assert not notes({"ce": {"label_smoothing": 0.2}})


def skewed(count: int = 240):
    """Three classes, of which the first has most samples and the last few."""
    y = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2]).repeat(count // 10)
    return kdmesh.data((torch.randn(count, 3, generator=torch.Generator().manual_seed(0)) + y[:, None], y))


def learned(weights, folder=None, **fields):
    """A run of one model that learns from such labels."""
    mesh = kdmesh.Mesh(
        data=skewed(),
        task={"classification": {"class_weights": weights}},
        train={"epochs": 2, "batch_size": 32},
        agents={"s": {"model": {"mlp": {"hidden": [4]}}, **fields}},
        connect=[],
    )
    return mesh, mesh.run(backend="inline", out=folder)


@pytest.mark.parametrize(("fields", "classes"), [({}, [0, 1, 2]), ({"labels": [2, 0]}, [2, 0])])
def test_balanced_weights_are_those_of_scikit_learn_on_what_is_learned_and_are_recorded(tmp_path, fields, classes):
    mesh, result = learned("balanced", tmp_path, **fields)
    found = examine(mesh.plan(), table=skewed())
    y = found.table.y[found.streams["train"].rows].numpy()
    assert len(y) < 240  # the rest is held out
    y = y[[label in classes for label in y]]
    wanted = compute_class_weight("balanced", classes=np.array(classes), y=y)
    told = {f"class_weight_{column}": pytest.approx(float(w), rel=1e-6) for column, w in enumerate(wanted)}
    (run,) = json.loads((result.folder / "results.json").read_text(encoding="utf-8"))["runs"]
    assert run["agents"]["s"]["objectives"] == {"labels -> s": told}
    numbers = list(run["agents"]["s"]["objectives"]["labels -> s"].values())
    _, same = learned(None, **fields) if fields else learned(numbers)
    sha = [one.summary["agents"]["s"]["weights_sha256"] for one in (result, same)]
    assert (sha[0] == sha[1]) == (not fields)


def test_each_of_two_flows_between_the_same_ends_reports():
    mesh = kdmesh.Mesh(
        data=skewed(),
        train={"epochs": 1, "batch_size": 32},
        agents={"s": {"model": {"mlp": {"hidden": [4]}}}},
        streams={"some": {"of": "train", "size": 60}},
        connect=[],
    )
    mesh.flow("labels", "s", objective={"ce": {"class_weights": "balanced"}})
    mesh.flow("labels", "s", objective={"ce": {"class_weights": "balanced"}}, stream="some")
    told = mesh.run(backend="inline").summary["agents"]["s"]["objectives"]
    assert list(told) == ["labels -> s: ce on train", "labels -> s: ce on some"]


def test_a_class_without_a_sample_counts_nothing():
    loss = CrossEntropy(class_weights="balanced")
    loss.setup(torch.Size([3]), torch.Size([]), labels=torch.tensor([0, 0, 0, 2]))
    assert loss.report() == {"class_weight_0": pytest.approx(2 / 3), "class_weight_1": 0.0, "class_weight_2": 2.0}
    s = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    own = F.cross_entropy(s, torch.tensor([0, 2, 2, 0]), reduction="none")
    torch.testing.assert_close(
        loss(s, torch.tensor([0, 2, 2, 0]), form="labels"), (own @ torch.tensor([2 / 3, 2, 2, 2 / 3])) / 4
    )
    with pytest.raises(MeshError, match="were not counted"):
        CrossEntropy(class_weights="balanced")(s, torch.tensor([0, 2, 2, 0]), form="labels")


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"task": {"regression": {"class_weights": "balanced"}}}, "task.regression", "class_weights"),
        ({"task": {"multi_label": {"class_weights": "balanced"}}}, "task.multi_label", "class_weights"),
        ({"task": {"classification": {"class_weights": "even"}}}, "task.classification.class_weights", "even"),
        (
            {"flows": [{"from": "t", "to": "s", "objective": {"ce": {"class_weights": "balanced"}}}]},
            "flows.0",
            "no effect",
        ),
    ],
)
def test_balanced_weights_of_no_classes_are_refused(fields, where, what):
    mesh = {"agents": {name: {"model": {"mlp": {"hidden": [4]}}} for name in "ts"}, **fields}
    with pytest.raises(MeshError, match=what) as error:
        examine(kdmesh.Mesh(data="digits", train={"epochs": 1}, **mesh).plan())
    assert error.value.where.startswith(where) and error.value.instead
