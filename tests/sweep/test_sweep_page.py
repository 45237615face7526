"""The page of a sweep: its numbers are those of its files, whole, going on and broken off."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET

import pytest
from conftest import HOT, LR, begun, swept
from page_text import Read

from kdmesh.engine.lock import held
from kdmesh.errors import MeshError, RunFailed
from kdmesh.report.page.blocks import Coordinates, Link, Scale, Slice, Table, Trace
from kdmesh.report.page.coordinates import draw
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import html

MESH = """
name: small
data: {dataset: digits, train: 100}
agents:
  one: {model: {mlp: {hidden: [8]}}}
  student: {model: {mlp: {hidden: [8]}}}
connect: [{ensemble: {teachers: one, student: student, objective: {kl: {temperature: 1}}}}]
train: {epochs: 4, batch_size: 32, optimizer: {sgd: {lr: 0.1}}}
"""
RATE = "train.optimizer.sgd.lr"


@pytest.fixture(scope="module")
def made(tmp_path_factory, here):
    """Four points, of which halving stops some and one fails; two arms."""
    root = begun(tmp_path_factory.mktemp("made"), f"{RATE}=1e38,0.1", f"{HOT}=1,4", seeds=2, halving=2, mesh=MESH)
    return root, swept(root)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "sweep")


def read(folder) -> Read:
    return Read(html(page_of(folder)))


def said(folder) -> str:
    return " ".join("".join(read(folder).text).split())


def test_what_the_command_line_set_stands_beside_the_file(folder):
    path = folder / "sweep.json"
    design = json.loads(path.read_text())
    design["given"]["train"]["epochs"] = 7
    path.write_text(json.dumps(design))
    assert read(folder).tables["What --set changed in the file"][1:] == [["train epochs", 7.0]]
    assert "before --set" in said(folder)


def test_its_numbers_are_those_of_its_table(made):
    root, table = made
    page = read(root)
    for arm in table["arms"]:
        row = page.row("What each arm searched", arm["arm"])
        assert [row[key] for key in ("points", "trials", "failed", "updates of student")] == [
            arm[key] for key in ("points", "trials", "failed", "updates")
        ]
        heads, *rows = page.tables[f"{arm['arm']}: points by validation"]
        shown = [dict(zip(heads, row, strict=True)) for row in rows]
        own = [one for one in table["points"] if one["arm"] == arm["arm"]]
        key = lambda one: (one["point"], one["part"])  # noqa: E731
        parts = {"whole": 1, "1/2": 2, "1/4": 4}
        assert {(one["point"], parts[one["budget"]], one["validation accuracy"]) for one in shown} == {
            (*key(one), "–" if one["validation"] is None else one["validation"]) for one in own
        }
        assert page.row("Chosen by validation", arm["arm"])["validation accuracy"] == arm["validation"]
    (pair,) = table["final"]["differences"]
    row = page.row("Differences", "mesh")
    assert [row["mean"], row["from"], row["to"], row["verdict"]] == [
        *(pair[key] for key in ("mean", "low", "high")), pair["verdict"]
    ]  # fmt: skip
    for one in table["final"]["contenders"]:
        row = page.row("All contenders", one["contender"])
        assert [row["accuracy on test"], row["trials"]] == [one["mean"], one["n"]]


def test_an_edited_table_changes_the_page(folder):
    path = folder / "sweep_result.json"
    table = json.loads(path.read_text())
    table["points"][1]["validation"] = 0.123456789
    path.write_text(json.dumps(table))
    assert any(0.123456789 in row for row in read(folder).tables["mesh: points by validation"])


def test_what_failed_and_what_was_stopped_is_told_with_why(made):
    root, table = made
    page = read(root)
    failed = page.tables["What failed"][1:]
    assert failed and all("NaN" in row[1] or "finite" in row[1] for row in failed)
    assert sum(one["failed"] for one in table["points"]) <= len(failed)
    fates = {row[-1] for row in page.tables["mesh: points by validation"][1:]}
    assert "chosen" in fates and "went on" in fates and any(fate.startswith("failed: 1 of 1") for fate in fates)


def test_costs_are_sums_over_trials(made):
    root, _ = made
    summaries = [json.loads(path.read_text()) for path in root.glob("trials/*/*/*/summary.json")]
    row = read(root).row("Costs of all trials", "all")
    assert row["trials"] == len(summaries)
    assert row["training and tests"] == pytest.approx(sum(one["wall_s"] for one in summaries))
    assert row["updates of student"] == sum(one["agents"]["student"]["updates"] for one in summaries)


def test_trials_lead_to_their_pages_from_wherever_the_page_lies(made, folder, tmp_path):
    assert not [one for one in read(folder).addresses if not one.startswith("#")]
    trial = next(folder.glob("trials/mesh/*/seed-0"))
    (trial / "report.html").write_text("a page")
    (tmp_path / "elsewhere").mkdir()
    for at in (None, tmp_path / "elsewhere"):
        page = page_of(folder, at=at)
        rows = next(one for of in page.sections for one in of.blocks if getattr(one, "title", "") == "All trials").rows
        (link,) = [cell for row in rows for cell in row if isinstance(cell, Link)]
        assert ((at or folder) / link.href).resolve() == (trial / "report.html").resolve()
        assert link.href in Read(html(page)).addresses


def test_one_that_goes_on_says_what_stands(folder):
    (folder / "sweep_result.json").unlink()
    assert "what was chosen is being tested" in said(folder)
    (folder / "chosen.json").unlink()
    with held(folder):
        text = said(folder)
    assert "Running: a process is at work on it" in text and "Best of mesh so far, on validation" in text
    assert "Nothing is chosen yet" in text
    page = read(folder)
    assert "went on" in {row[-1] for row in page.tables["mesh: points by validation"][1:]}
    shutil.rmtree(folder / "trials")
    assert "Nothing has been measured yet" in said(folder)


def test_one_of_which_everything_failed_says_so(here, tmp_path):
    root = begun(tmp_path, f"{RATE}=1e38,2e38", mesh=MESH, seeds=1, controls=False)
    with pytest.raises(RunFailed, match="every point failed"):
        swept(root)
    text = said(root)
    assert "Every trial failed so far, so that nothing could be chosen" in text and "kdmesh resume goes on" in text


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("sweep.json", "{", "sweep.json is damaged"),
        ("sweep.json", '{"version": 9, "arms": {}, "axes": []}', "of version 9"),
        ("sweep_result.json", '{"version": 9}', "of version 9"),
        ("sweep_result.json", '{"version": 1}', "sweep_result.json is damaged"),
    ],
)
def test_what_cannot_be_read_is_refused(folder, name, text, words):
    (folder / name).write_text(text)
    with pytest.raises(MeshError, match=re.escape(words)):
        page_of(folder)


def test_names_and_values_with_html_in_them_are_shown_as_they_are(folder):
    design, table = (json.loads((folder / name).read_text()) for name in ("sweep.json", "sweep_result.json"))
    design["name"] = design["agent"] = "<script>\x1b[2J"
    text = json.dumps(table).replace(RATE, "<img src=x>").replace('"mesh"', '"<b>mesh"')
    design = json.loads(json.dumps(design).replace(RATE, "<img src=x>").replace('"mesh"', '"<b>mesh"'))
    (folder / "sweep.json").write_text(json.dumps(design))
    (folder / "sweep_result.json").write_text(text)
    made = html(page_of(folder))
    page = Read(made)
    assert not {"script", "img", "b"} & page.tags and "\x1b" not in made
    assert "<img src=x>" in page.tables["The space"][1][0]


ODD = "<b>&\"'"
TRACES = [
    Trace("p1", ["4", 0.1], 0.5, ODD, "chosen", chosen=True),
    Trace(ODD, ["1", 0.01], 0.25, "b", early=True),
    Trace("p3", ["1", 0.03], None, "b", "failed"),
]


@pytest.mark.parametrize(
    "chart",
    [
        Coordinates(ODD, ODD, [Scale("a.x", ["1", "4"]), Scale("b.x", log=True)], TRACES),
        Slice(ODD, ODD, [Scale(ODD, ["1", "4"])], [Trace(one.name, one.at[:1], one.value, one.role) for one in TRACES]),
        Slice("s", "y", [Scale("b.x")], [Trace(one.name, one.at[1:], one.value, one.role) for one in TRACES]),
        Coordinates("none", "y", [Scale("a"), Scale("b")], [Trace("p", [1.0, 2.0], None)]),
    ],
    ids=["coordinates", "marks", "numbers", "nothing"],
)
def test_a_chart_of_settings_is_xml_with_a_title_a_description_and_a_table(chart):
    (root,) = ET.fromstring(f"<p>{draw(chart, 'key')}</p>").iter("svg")
    assert [root[0].tag, root[1].tag] == ["title", "desc"] and root[0].text == chart.title
    assert root.get("aria-labelledby") == f"{root[0].get('id')} {root[1].get('id')}" and root.get("role") == "img"
    assert isinstance(chart.table, Table) and len(chart.table.rows) == len(chart.traces)
    assert all(len(row) == len(chart.table.heads) for row in chart.table.rows)


def test_the_best_figure_ends_where_its_axis_says():
    chart = Coordinates("t", "y", [Scale("a", ["1", "4"]), Scale("b", ["1"])], [
        Trace("low", ["1", "1"], 0.2), Trace("high", ["4", "1"], 0.8)
    ])  # fmt: skip
    root = ET.fromstring(draw(chart, "key"))
    ends = {}
    for line in root.iter("polyline"):
        ends[line[0].text.split()[0]] = [float(point.split(",")[1]) for point in line.get("points").split()]
    assert ends["high"][0] < ends["low"][0] and ends["high"][-1] < ends["low"][-1] and ends["high"][1] == ends["low"][1]


def test_paths_that_end_alike_are_told_apart():
    scales = [Scale("agents.one.train.lr", ["1"]), Scale("agents.two.train.lr", ["1"]), Scale(LR, ["1"])]
    drawn = draw(Coordinates("t", "y", scales, [Trace("p", ["1", "1", "1"], 0.5)]), "key")
    assert ">one.train.lr<" in drawn and ">two.train.lr<" in drawn and ">adamw.lr<" in drawn
