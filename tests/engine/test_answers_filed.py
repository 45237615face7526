"""How every test sample was answered: filed by each run, of the very answers that are measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kdmesh
from kdmesh.builtin.metrics.accuracy import Accuracy
from kdmesh.contracts.run_files import ANSWERS
from kdmesh.engine.answers import _arrays
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.hosts import answered
from kdmesh.hosts.state import Kept
from kdmesh.report.answers import read


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def run(made: kdmesh.Mesh, out: Path, **fields: Any) -> Path:
    return Path(made.run(backend="inline", out=out, **fields).folder)


@pytest.fixture
def council(mesh, table):
    def make(**fields: Any) -> kdmesh.Mesh:
        made = mesh(["a", "b", "s"], **fields)
        made.connect("ensemble", teachers=["a", "b"], student="s")
        return made

    return make


def test_filed_answers_are_those_that_were_measured(council, table, tmp_path):
    made = council()
    folder = run(made, tmp_path)
    found, facts = read(folder), summary(folder)
    assert facts["answers"] == {"file": ANSWERS, "rows": 40, "score": "accuracy"}
    assert [*found.agents, *found.consensus] == ["a", "b", "s", "c"]
    rows = examine(made.plan(), {}, made.table).streams["test"].rows
    assert found.ids.tolist() == rows.tolist() and found.labels.tolist() == table.y[rows].tolist()
    for group in ("agents", "consensus"):
        for name, one in getattr(found, group).items():
            figures = facts[group][name]["metrics"]["test"]
            assert one.score.mean() == pytest.approx(figures["accuracy"])
            assert np.array_equal(one.decision == found.labels, one.score == 1)
            gap = np.histogram(one.confidence, 15, (0, 1), weights=one.score - one.confidence)[0]
            assert np.abs(gap).sum() / 40 == pytest.approx(figures["ece"], abs=1e-6)
    module = kdmesh.load(folder / "agents" / "s").eval()
    with torch.no_grad():
        p = module(table.x[rows]).softmax(1)
    assert found.agents["s"].confidence == pytest.approx(p.amax(1).numpy(), abs=1e-6)
    assert found.agents["s"].decision.tolist() == p.argmax(1).tolist()


@pytest.mark.parametrize(("name", "scored"), [("loss", True), ("macro_f1", False)])
def test_scores_are_of_the_metric_by_which_the_run_compares(council, tmp_path, name, scored):
    folder = run(council(primary=name, train={"steps": 3, "batch_size": 8}), tmp_path)
    found, facts = read(folder), summary(folder)
    assert found.metric == name and facts["answers"]["score"] == (name if scored else None)
    if scored:
        assert found.score("s").mean() == pytest.approx(facts["agents"]["s"]["metrics"]["test"][name], rel=1e-5)
        assert not found.higher
    else:
        assert found.score("s") is None and "macro_f1 is no mean over samples" in facts["answers"]["why"]


def test_hosts_file_equal_bytes_together_and_spread_and_a_lost_file_is_made_again(council, tmp_path):
    one, other = (run(council(placement=how), tmp_path / how) for how in ("together", "spread"))
    content = (one / ANSWERS).read_bytes()
    assert content == (other / ANSWERS).read_bytes()
    (other / ANSWERS).unlink()
    council(placement="spread").run(backend="inline", resume=other)
    assert content == (other / ANSWERS).read_bytes()


def test_of_some_classes_decisions_are_classes_of_the_data(mesh, tmp_path):
    folder = run(mesh({"a": {"labels": [2, 0]}, "b": {}}), tmp_path)
    found = read(folder).agents["a"]
    assert set(found.decision.tolist()) <= {0, 2}
    assert found.score.mean() == pytest.approx(summary(folder)["agents"]["a"]["metrics"]["test"]["accuracy"])


def test_values_are_filed_and_why_they_have_no_score(tmp_path):
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    parts = [(x[rows], x[rows][:, :2]) for rows in torch.arange(60).split(20)]
    made = kdmesh.Mesh(task="regression", data=kdmesh.data(*parts), train={"steps": 3, "batch_size": 8})
    made.agent("a", {"mlp": {"hidden": [4]}})
    folder = run(made, tmp_path)
    found, facts = read(folder), summary(folder)
    assert facts["answers"]["score"] is None and "r2 is no mean over samples" in facts["answers"]["why"]
    one = found.agents["a"]
    assert (one.score, one.decision, one.confidence) == (None, None, None) and found.score("a") is None
    error = np.square(one.values.astype(float) - found.labels).mean()
    assert error == pytest.approx(facts["agents"]["a"]["metrics"]["test"]["mse"])


def test_what_is_withheld_is_said_and_leaves_no_host(council, tmp_path, monkeypatch):
    made = council()
    plan, streams = made.plan(), examine(made.plan(), {}, made.table).streams
    assert answered.withheld(plan, streams) == ""
    mine = dataclasses.replace(streams["test"], name="mine", private=True, rows=streams["test"].rows[:1])
    assert "test samples are private, by stream mine" in answered.withheld(plan, {**streams, "mine": mine})
    told = dataclasses.replace(plan, task=dataclasses.replace(plan.task, outputs="vocabulary"))
    assert "as its texts have tokens" in answered.withheld(told, streams)
    assert answered.withheld(plan, {"train": streams["train"]}) == "there is no test stream"
    monkeypatch.setattr(answered, "MOST", 100)
    folder = run(made, tmp_path)
    assert summary(folder)["answers"]["file"] is None and "MiB" in summary(folder)["answers"]["why"]
    assert not (folder / ANSWERS).exists() and read(folder) is None


def test_agents_whose_texts_are_cut_into_other_rows_are_left_out():
    def kept(*ids: int) -> Kept:
        rows = np.array(ids)
        return Kept(rows, rows % 2, np.ones(len(rows), np.float32), None, None, None)

    arrays, left_out = _arrays({"a": kept(1, 1, 2), "b": kept(1, 2), "c": kept(1, 1, 2)}, ["a", "b", "c"])
    assert sorted(arrays) == ["a/score", "c/score", "ids", "labels"]
    assert left_out == {"b": "its texts are cut into other rows than those of a"}


def test_a_metric_that_gives_no_number_a_row_is_blamed(council, monkeypatch):
    monkeypatch.setattr(Accuracy, "each", lambda self, answers: answers.p)
    with pytest.raises(MeshError, match=r"each\(\) gave \(40, 3\) for 40 rows"):
        council().run(backend="inline")
