from __future__ import annotations

import math
import sys

import pytest
from page_text import Read
from pydantic import ValidationError

from kdmesh.cli import main
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import html
from kdmesh.sections import Bar, Bars, Line, Lines, Section, Table, Text

PLUGIN = """
import math

import kdmesh
from kdmesh.sections import Bar, Bars, Line, Lines, Section, Table, Text

@kdmesh.hookimpl
def kdmesh_report(run):
    accuracy = run.summaries[0]["agents"]["s"]["metrics"]["test"]["accuracy"]
    run.summaries.clear()
    run.mesh["name"] = "spoilt"
    rows = [["s", accuracy], ["nothing", None], ["nan", math.nan]]
    table = Table(title="Own <table>", heads=["", "figure"], rows=rows)
    curve = Lines(title="Own lines", x="x", y="y", lines=[Line(name="a", points=[(0, 1), (1, None), (2, 3.5)])])
    bars = Bars(title="Own bars", x="seconds", bars=[Bar(name="one", value=2.0, low=1.0, high=3.0)])
    said = f"<script>alert(1)</script> {run.status} {sorted(run.seeds)} {run.folder.name}"
    return [Section(title="Own <b>section</b>", blocks=[Text(words=said), table, curve, bars])]
"""
FAULTY = """
import kdmesh

@kdmesh.hookimpl
def kdmesh_report(run):
    raise RuntimeError("no <luck>")
"""
ODD = """
import kdmesh

@kdmesh.hookimpl
def kdmesh_report(run):
    return ["<p>markup</p>"]
"""
SILENT = """
import kdmesh

@kdmesh.hookimpl
def kdmesh_report():
    return None
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Single-file plugins, under names of their own."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name, text in (("page_own", PLUGIN), ("page_faulty", FAULTY), ("page_odd", ODD), ("page_silent", SILENT)):
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setitem(sys.modules, name, None)  # put back afterwards
        del sys.modules[name]
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(folder))
    monkeypatch.setenv("KDMESH_PLUGINS", "page_own,page_faulty,page_odd,page_silent")
    return folder


def test_sections_stand_on_the_page_escaped_and_named(runs, installed):
    page = page_of(runs["small"], whole=True)
    text = html(page)
    read = Read(text)
    said = "".join(read.text)
    figure = read.row("All figures", "s")["test accuracy"]
    assert read.row("Own <table>", "s")["figure"] == figure
    assert read.row("Own <table>", "nothing")["figure"] == read.row("Own <table>", "nan")["figure"] == "–"
    assert "<script" not in text and "<script>alert(1)</script> finished [0] " in said
    assert "Own <b>section</b>" in said and "page_own" in said
    assert 'aria-label="Own lines' in html(page, interactive=True) and page.title == "small"


def test_one_that_fails_or_gives_something_else_is_said_and_spoils_nothing(runs, installed):
    page = page_of(runs["small"], whole=True)
    said = "".join(Read(html(page)).text)
    assert "RuntimeError: no <luck>" in said and "page_faulty" in said
    assert "gave a list with str" in said and "<p>markup</p>" not in html(page)
    ids = [section.id for section in page.sections]
    assert len([one for one in ids if one.startswith("plugin-")]) == 3 and ids[-1] == "manifest"
    assert len(set(ids)) == len(ids)


def test_only_the_command_asks_plugins(runs, installed, capsys):
    page = page_of(runs["small"])
    assert not any(one.id.startswith("plugin-") for one in page.sections)
    assert "Left out here: samples and sections of plugins" in html(page)
    assert main(["report", str(runs["small"])]) == 0
    assert "Own bars" in (runs["small"] / "report.html").read_text()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Table(title="t", heads=["a", "b"], rows=[["one"]]),
        lambda: Table(title="t", heads=[], rows=[]),
        lambda: Table(title="t", heads=["a"], rows=[[object()]]),
        lambda: Text(words=3),
        lambda: Text(words="x", html="<b>"),
        lambda: Line(name="a", points=[("0", 1)]),
        lambda: Bar(name="a", value=True),
        lambda: Section(title="t", blocks=[]),
        lambda: Section(title="t" * 201, blocks=[Text(words="x")]),
        lambda: Text(words="x" * 10_001),
    ],
)
def test_what_is_no_block_is_refused_where_it_is_made(make):
    with pytest.raises(ValidationError):
        make()


def test_one_drawing_has_not_too_many_points():
    with pytest.raises(ValueError, match="20,001 points in one drawing: at most 20,000"):
        Lines(title="t", x="x", y="y", lines=[Line(name=str(at), points=[(0, 1)] * 6667) for at in range(3)])


def test_numbers_that_are_not_finite_are_left_out(runs, monkeypatch):
    from kdmesh.report.page.contributed import _block

    lines = _block(Lines(title="t", x="x", y="y", lines=[Line(name="a", points=[(math.nan, 1), (1, math.inf)])]))
    assert list(lines.series[0].points) == [(1.0, None, None, None)]
    assert _block(Bars(title="t", x="x", bars=[Bar(name="a", value=math.nan)])).bars == []
