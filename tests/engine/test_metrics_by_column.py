"""A metric by the values of a column: figures against a plain count, what is written and told, what is refused."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from sklearn import metrics as known

import kdmesh
from kdmesh.contracts.metric import Answers
from kdmesh.hosts.by_column import ByColumn
from kdmesh.metrics import Accuracy, MacroF1, MeanAbsoluteError
from kdmesh.report.tables import final_table
from kdmesh.schema import json_schema
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table
from kdmesh.tasks import definitions

MLP = {"mlp": {"hidden": [8]}}
TRAIN = {"epochs": 20, "batch_size": 16, "optimizer": {"adam": {"lr": 0.02}}}
DOMAINS = ("news", "web", "wiki")


def told(metric, higher, scores, labels, numbers, *cuts):
    made = ByColumn("it", "domain", DOMAINS, metric, higher)
    ends = [0, *cuts, len(labels)]
    for start, end in pairwise(ends):
        at = slice(start, end)
        made.update(Answers(scores[at], labels[at], columns={"domain": numbers[at]}))
    return made.compute()


def test_figures_are_those_of_the_rows_with_each_value():
    generator = torch.Generator().manual_seed(1)
    scores, labels = torch.randn(90, 3, generator=generator), torch.arange(90) % 3
    numbers = torch.randint(-1, 2, (90,), generator=generator)  # of the third value there is no row; -1 is none
    found = told(MacroF1, True, scores, labels, numbers, 17, 18, 60)
    wanted = {
        value: known.f1_score(labels[numbers == n], scores[numbers == n].argmax(1), average="macro")
        for n, value in enumerate(DOMAINS[:2])
    }
    assert found["values"] == pytest.approx(wanted, abs=1e-12)
    assert found["rows"] == {value: int((numbers == n).sum()) for n, value in enumerate(DOMAINS[:2])}
    assert found["worst"] == pytest.approx(min(wanted.values())) and found["average"] == pytest.approx(
        sum(wanted.values()) / 2
    )
    assert found["worst_value"] == min(wanted, key=wanted.__getitem__)


def test_where_less_is_better_the_worst_is_the_largest():
    scores, labels = torch.zeros(4, 1), torch.tensor([[1.0], [1.0], [5.0], [3.0]])
    found = told(MeanAbsoluteError, False, scores, labels, torch.tensor([0, 0, 1, 1]))
    assert (found["values"], found["worst_value"], found["average"]) == ({"news": 1.0, "web": 4.0}, "web", 2.5)


def test_without_a_row_that_has_a_value_there_is_a_reason():
    made = ByColumn("it", "domain", DOMAINS, Accuracy, True)
    made.update(Answers(torch.randn(3, 2), torch.tensor([0, 1, 0]), columns={"domain": torch.tensor([-1, -1, -1])}))
    assert made.compute() is None and made.undefined() == "no row has a value in column 'domain'"


def data(rows: int = 240) -> Table:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(rows, 4, generator=generator)
    y = (x[:, 0] > 0).long()
    domain = [DOMAINS[n % 3] for n in range(rows)]
    y[2::3] = torch.randint(2, (len(y[2::3]),), generator=generator)  # of `wiki` nothing can be learned
    return Table(x, y, classes=2, columns={"domain": domain, "id": [str(n) for n in range(rows)]})


def mesh(metrics, table=None, **fields):
    made = kdmesh.Mesh(data=table or data(), metrics=metrics, **{"train": TRAIN, **fields})
    for name in "ab":
        made.agent(name, MLP)
    made.connect("ensemble", teachers=["a"], student="b")
    return made


def test_a_run_tells_it_in_its_files_and_below_its_table(tmp_path):
    asked = ["macro_f1", {"accuracy": {"by": "domain"}}, {"macro_f1": {"by": "domain"}}]
    result = mesh(asked).run(backend="inline", out=tmp_path / "run")
    figures = result.summary["agents"]["b"]["metrics"]["test"]
    assert list(figures) == ["accuracy", "loss", "ece", "macro_f1", "accuracy_by_domain", "macro_f1_by_domain"]
    by = figures["accuracy_by_domain"]
    assert by["worst_value"] == "wiki" and by["values"]["news"] > 0.8 > by["worst"]
    whole = sum(by["values"][value] * by["rows"][value] for value in DOMAINS) / sum(by["rows"].values())
    assert whole == pytest.approx(figures["accuracy"])
    results = json.loads((next((tmp_path / "run").rglob("results.json"))).read_text())
    assert results["runs"][0]["agents"]["b"]["metrics"]["test"]["accuracy_by_domain"] == by
    assert results["definitions"]["accuracy_by_domain"].endswith("by the values of column 'domain'")
    lines = "\n".join(final_table(result.summary).lines(100_000))
    other = result.summary["agents"]["a"]["metrics"]["test"]["accuracy_by_domain"]
    assert f"a worst {other['worst']:.4f} ({other['worst_value']})" in lines
    assert "test accuracy by domain: " in lines
    assert f"b worst {by['worst']:.4f} (wiki), mean {by['average']:.4f}" in lines and "accuracy_by_domain" not in lines


def test_what_is_measured_changes_no_weights():
    plain, by = (mesh(asked).run(backend="inline") for asked in ([], [{"accuracy": {"by": "domain"}}]))
    assert [plain[name].weights_sha256 for name in "ab"] == [by[name].weights_sha256 for name in "ab"]


@pytest.mark.parametrize(
    ("metrics", "where", "what"),
    [
        ([{"accuracy": {"by": "dmain"}}], "metrics.0.accuracy.by", "the data have no column 'dmain'"),
        ([{"accuracy": {"by": "domain"}}] * 2, "metrics.1", "'accuracy_by_domain' stands here twice"),
        ([{"confusion_matrix": {"by": "domain"}}], "metrics.0.confusion_matrix.by", "it is no single number"),
        ([{"accuracy": {"by": 3}}], "metrics.0", "`by` .*names a column of the data"),
        ([{"accuracy": {"by": ""}}], "metrics.0", "`by` .*names a column of the data"),
        ([{"accuracy": {"bye": "domain"}}], "metrics.0.accuracy.bye", "unknown field"),
    ],
)
def test_what_cannot_be_told_by_a_column_is_refused(metrics, where, what):
    with pytest.raises(kdmesh.MeshError, match=what) as error:
        mesh(metrics).run(backend="inline")
    assert error.value.where.startswith(where)


def test_a_column_of_ids_is_refused():
    with pytest.raises(kdmesh.MeshError, match="column 'id' has 1200 different values"):
        mesh([{"accuracy": {"by": "id"}}], data(1200)).run(backend="inline")


def test_the_long_form_and_the_schema_have_it():
    spec = parse({"data": "digits", "agents": {"a": {"model": "mlp"}}, "metrics": [{"accuracy": {"by": "domain"}}]})
    assert spec.dump()["metrics"] == [{"accuracy": {"by": "domain"}}]
    choices = json_schema()["$defs"]["MetricRef"]["anyOf"][-1]["properties"]
    assert all("by" in one["anyOf"][0]["properties"] for one in choices.values())
    assert "by" not in json_schema()["$defs"]["Config"].get("properties", {})


def test_what_is_told_by_a_column_is_defined():
    words = definitions(["accuracy", "accuracy_by_domain", "accuracy_by_a_by_b", "no_such"])
    assert words["accuracy_by_domain"] == f"{words['accuracy']}; by the values of column 'domain'"
    assert words["accuracy_by_a_by_b"].endswith("'a_by_b'") and "no_such" not in words


def test_a_feature_is_named_as_one(tmp_path):
    rows = "".join(f"{number},{'ab'[number % 2]},{number % 2}\n" for number in range(40))
    (tmp_path / "d.csv").write_text(f"size,ward,kind\n{rows}")
    csv = {"csv": {"path": str(tmp_path / "d.csv"), "label": "kind"}}
    made = kdmesh.Mesh(data={"dataset": csv}, metrics=[{"accuracy": {"by": "size"}}], train={"epochs": 1})
    made.agent("a", {"mlp": {"hidden": [2]}})
    made.flow("labels", "a", objective="ce")
    with pytest.raises(kdmesh.MeshError, match="column 'size' is a feature, of numbers") as error:
        made.run(backend="inline")
    assert "ward" in error.value.instead
