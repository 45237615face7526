from __future__ import annotations

import json
import shutil

import pytest
from page_text import Read

from kdmesh.compare.analysis import analyse
from kdmesh.compare.design import Design
from kdmesh.errors import MeshError
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import html


@pytest.fixture
def folder(runs, tmp_path):
    """A comparison's folder: two contenders, two seeds, from seeds of a run with made-up figures."""
    root, whole = tmp_path / "comparison", runs["several"]
    entry = {"mesh": {}, "agent": "s", "differs": [], "text": None, "beside": []}
    asked = {"seeds": [0, 1], "data_seeds": [0], "controls": True, "equal": None, "against": "first"}
    rest = {"backend": "inline", "strict_signals": False}
    design = Design.model_validate({"contenders": {"one": entry, "other": entry}, **asked, **rest})
    found = {}
    for number, trial in enumerate(design.trials()):
        at = root / "trials" / trial.contender / f"data-{trial.data_seed}-seed-{trial.seed}"
        shutil.copytree(whole / "seeds" / str(trial.seed), at, ignore=shutil.ignore_patterns("agents", "checkpoints"))
        summary = json.loads((at / "summary.json").read_text())
        summary["agents"]["s"]["metrics"]["test"]["accuracy"] = 0.5 + 0.1 * (trial.contender == "other") + 0.01 * number
        (at / "summary.json").write_text(json.dumps(summary))
        found[trial] = summary
    (root / "compare.json").write_text(design.model_dump_json())
    (root / "comparison.json").write_text(json.dumps(analyse(design, found)))
    return root


def test_contenders_and_differences_stand_on_the_page(folder):
    table = json.loads((folder / "comparison.json").read_text())
    read = Read(html(page_of(folder)))
    for one in table["contenders"]:
        row = read.row("All contenders", one["contender"])
        assert [row["accuracy on test"], row["± 95%"], row["trials"]] == [one["mean"], one["half_width"], one["n"]]
    (pair,) = table["differences"]
    row = read.row("Differences", "other")
    assert [row["mean"], row["verdict"], row["wins"]] == [pair["mean"], pair["verdict"], pair["wins"]]
    assert len(read.tables["All trials"]) == 5
    said = "".join(read.text)
    assert f"{pair['verdict']}" in said and "paired over 2 seeds" in said and "other against one" in said
    assert "2 seeds are few." in said and "parameters against" in said and "a trial without its controls took" in said
    controls = read.tables["Each contender against its own controls"][1:]
    assert [row[:2] for row in controls] == [
        [one["contender"], {"alone": "alone", "best_teacher": "best teacher only"}[made["against"]]]
        for one in table["contenders"]
        for made in one["controls"]
    ]
    assert {row[0] for row in controls} == {"one", "other"}


def test_mean_rewards_of_written_texts_stand_on_the_page(folder):
    path = folder / "comparison.json"
    table = json.loads(path.read_text())
    assert "Rewards of written texts" not in Read(html(page_of(folder))).tables
    table["contenders"][1]["rewards"] = {"rollouts": {"mean": 0.25, "half_width": None, "n": 2}}
    path.write_text(json.dumps(table))
    assert Read(html(page_of(folder))).tables["Rewards of written texts"][1:] == [["other", "rollouts", 0.25, 2]]


def test_what_was_changed_and_controls_that_could_not_be_made_are_told(folder):
    path = folder / "comparison.json"
    table = json.loads(path.read_text())
    table["contenders"][1] |= {"differs": ["train.epochs=3"], "no_control": {"best_teacher": "it wants two sources"}}
    path.write_text(json.dumps(table))
    said = "".join(Read(html(page_of(folder))).text)
    assert "other has no control by the best teacher only: it wants two sources" in said
    assert "Changed" in said and said.index("train.epochs=3") < said.index("Each contender against")


def test_a_comparison_that_goes_on_has_a_page(folder):
    (folder / "comparison.json").unlink()
    said = "".join(Read(html(page_of(folder))).text)
    assert "Its table is not written yet" in said and "4 of 4 trials are whole" in said


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("comparison.json", '{"version": 1}', "comparison.json is damaged"),
        ("comparison.json", '{"version": 9}', "of version 9"),
        ("compare.json", "{", "compare.json is damaged"),
    ],
)
def test_what_cannot_be_read_is_refused(folder, name, text, said):
    (folder / name).write_text(text)
    with pytest.raises(MeshError, match=said):
        page_of(folder)
