from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from test_charts import ODD

from kdmesh.cli import main
from kdmesh.report.page.blocks import (
    Bar,
    Bars,
    Coordinates,
    Lines,
    Matrix,
    Page,
    Point,
    Points,
    Scale,
    Section,
    Series,
    Slice,
    Span,
    Spans,
    Trace,
)
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import BUNDLE, html, scripts
from kdmesh.report.page.vega import spec

FEW = Lines(
    ODD,
    ODD,
    ODD,
    [Series(ODD, [(1, 0.5, 0.4, 0.6), (2, None, None, None)], "teacher"), Series("b", [(1, 1, None, None)])],
)
MANY = Lines("many", "x", "y", [Series(f"{at}", [(1, at, None, None), (2, at / 3, None, None)]) for at in range(300)])
BARS = Bars(ODD, ODD, [Bar(ODD, -1e-9, -1.0, 1e12, ODD), Bar("b", 0.0)])
POINTS = Points(ODD, ODD, ODD, [Point(ODD, 1e-3, 0.5, ODD, True), Point("b", 1e9, 0.5, "r", True)], log=True)
MATRIX = Matrix(ODD, [ODD, "d"], [ODD, "c"], [[-0.5, None], [0.25, 1.0]], ODD, ODD)
SPANS = Spans(ODD, [Span(ODD, ODD, 0.0, 0.0, "lost"), Span("a", "b", 0.0, 5.0)])
TRACES = [
    Trace("p1", ["4", 0.1], 0.5, ODD, "chosen", chosen=True),
    Trace(ODD, ["1", 0.01], 0.25, "b", early=True),
    Trace("p3", [ODD, 0.03], None, "b", "failed"),
]
ACROSS = Coordinates(ODD, ODD, [Scale("a.x", ["1", "4", ODD]), Scale("b.x", log=True)], TRACES)
MARKED = Slice(ODD, ODD, [Scale(ODD, ["1", "4", ODD])], [Trace(t.name, t.at[:1], t.value, t.role) for t in TRACES])
SLICE = Slice("s", ODD, [Scale("b.x", log=True)], [Trace(t.name, t.at[1:], t.value, t.role) for t in TRACES])
CHARTS = [FEW, MANY, BARS, POINTS, MATRIX, SPANS, ACROSS, MARKED, SLICE]


def expressions(value):
    """Every text of a spec that Vega reads as an expression."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key in ("calculate", "expr", "test", "filter", "zoom", "translate") and isinstance(one, str):
                yield one
            yield from expressions(one)
    elif isinstance(value, list):
        for one in value:
            yield from expressions(one)


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.kind)
def test_a_spec_has_the_charts_data_and_no_text_of_a_run_in_an_expression(chart):
    made = spec(chart)
    text = json.dumps(made, allow_nan=False)
    assert "url" not in text.replace(made["$schema"], "") and made["data"]["values"]
    found = list(expressions({key: one for key, one in made.items() if key != "data"}))
    assert not [one for one in found if ODD in one or "alert" in one]


def test_data_are_those_of_the_chart():
    rows = spec(FEW)["data"]["values"]
    assert [(row["n"], row["x"], row["y"], row["l"], row["h"]) for row in rows] == [
        (ODD, 1, 0.5, 0.4, 0.6),
        ("b", 1, 1, None, None),
    ]
    assert [(row["name"], row["value"], row["high"]) for row in spec(BARS)["data"]["values"]] == [
        (ODD, -1e-9, 1e12),
        ("b", 0.0, None),
    ]
    assert [(row["row"], row["column"], row["value"]) for row in spec(MATRIX)["data"]["values"]] == [
        (ODD, ODD, -0.5),
        ("d", ODD, 0.25),
        ("d", "c", 1.0),
    ]
    assert [(row["lane"], row["begin"], row["end"]) for row in spec(SPANS)["data"]["values"]] == [
        (ODD, 0, 0),
        ("a", 0, 5),
    ]
    assert len(spec(MANY)["data"]["values"]) == 600
    rows = spec(ACROSS)["data"]["values"]
    assert [(row["n"], row["x"]) for row in rows] == [(point, scale) for point in range(3) for scale in range(3)]
    assert [row["fate"] for row in rows[::3]] == ["chosen", "stopped early", "failed"]
    assert [(row["x"], row["y"], row["role"]) for row in spec(SLICE)["data"]["values"]] == [
        (0.1, 0.5, ODD),
        (0.01, 0.25, "b"),
    ]


@pytest.mark.parametrize(
    "chart",
    [
        Lines("", "", "", [Series("a", [(1, None, None, None)])]),
        Bars("", "", []),
        Points("", "", "", []),
        Matrix("", ["a"], ["b"], [[None]]),
        Spans("", []),
        Coordinates("", "", [Scale("a"), Scale("b")], [Trace("p", [1.0, 2.0], None)]),
        Coordinates("", "", [Scale(str(at)) for at in range(6)], [Trace("p", [1.0] * 6, 0.5)]),  # too wide
        Slice("", "", [Scale("a")], [Trace("p", [1.0], None)]),
    ],
    ids=lambda chart: chart.kind,
)
def test_nothing_has_no_spec(chart):
    assert spec(chart) is None


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.kind)
def test_vega_lite_takes_each(chart):
    compiled = pytest.importorskip("vl_convert", reason="pip install 'kdmesh[bundle]'").vegalite_to_vega(spec(chart))
    assert compiled["marks"]


class Scripts(HTMLParser):
    """The scripts of a page, by their type."""

    def __init__(self, text):
        super().__init__()
        self.found: list[tuple[str | None, str]] = []
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        if tag == "script":
            assert "src" not in about
            self.found.append((about.get("type"), ""))
        if about.get("http-equiv") == "Content-Security-Policy":
            self.policy = about["content"]

    def handle_data(self, data):
        if self.lasttag == "script":
            kind, text = self.found[-1]
            self.found[-1] = kind, text + data

    def handle_endtag(self, tag):
        self.lasttag = ""


def summed(text):
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def test_a_page_runs_its_own_scripts_alone():
    odd = Lines("</script><script>alert(1)</script>", "<!--", "y", [Series("</script>", [(1, 2, None, None)])])
    page = Page("t", [], [], [], [], [], [Section("s", "s", [odd, BARS])])
    read = Scripts(html(page, interactive=True))
    assert [kind for kind, _ in read.found] == ["application/json", "application/json", "text/plain", None]
    assert [text for _, text in read.found[2:]] == scripts()
    assert read.policy.startswith(
        f"default-src 'none'; script-src {summed(scripts()[0])} {summed(scripts()[1])}; style-src"
    )
    assert json.loads(read.found[0][1]) == spec(odd)
    assert Scripts(html(page)).found == [] and "script-src" not in html(page)


def test_the_bundle_is_the_one_that_is_recorded():
    about = json.loads((BUNDLE / "versions.json").read_text())
    assert about["sha256"] == sha256((BUNDLE / "vega.js").read_bytes()).hexdigest()
    licences = (BUNDLE / "LICENSES.txt").read_text()
    assert {name for name in ("vega", "vega-lite", "vega-embed") if f"{name} {about[name]}" in licences} == {
        "vega",
        "vega-lite",
        "vega-embed",
    }
    assert "Redistributions in binary form" in licences and "*/" not in licences
    assert not re.search(r"</script|<!--", "".join(scripts()), re.IGNORECASE)


def test_the_command_writes_both_forms_and_specs_for_all_charts(runs, capsys):
    folder = runs["small"]
    path = folder / "report.html"
    assert main(["report", str(folder)]) == 0
    kinds = [block.kind for section in page_of(folder).sections for block in section.blocks]
    charts = [kind for kind in kinds if kind in ("lines", "bars", "points", "matrix", "spans")]
    found = Scripts(path.read_text()).found
    assert len(charts) > 5 and len(found) == len(charts) + 2
    assert main(["report", str(folder), "--static"]) == 0
    assert Scripts(path.read_text()).found == [] and path.stat().st_size < 300_000
