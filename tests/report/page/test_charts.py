from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from kdmesh.report.page.blocks import (
    MOST_POINTS,
    Bar,
    Bars,
    Lines,
    Matrix,
    Point,
    Points,
    Series,
    Span,
    Spans,
    number,
    thinned,
)
from kdmesh.report.page.charts import Axis, draw

ODD = "<b>&\"'"


@pytest.mark.parametrize(
    "chart",
    [
        Lines(ODD, ODD, ODD, [Series(ODD, [(1, 0.5, 0.4, 0.6), (2, None, None, None), (3, 0.5, 0.4, 0.6)])]),
        Lines("many", "x", "y", [Series(f"{at}", [(1, at, None, None), (2, at, None, None)]) for at in range(300)]),
        Lines("nothing", "x", "y", [Series("a", [(1, None, None, None)])]),
        Bars(ODD, ODD, [Bar(ODD, -1e-9, -1.0, 1e12, ODD), Bar("b", 0.0)]),
        Points(ODD, ODD, ODD, [Point(ODD, 1e-3, 0.5, ODD, True), Point("b", 1e9, 0.5, "r", True)], log=True),
        Matrix(ODD, [ODD], [ODD, "c"], [[-0.5, None]], ODD, ODD),
        Spans(ODD, [Span(ODD, ODD, 0.0, 0.0, "lost"), Span("a", "b", 0.0, 5.0)]),
    ],
    ids=lambda chart: f"{chart.kind}-{len(chart.title)}",
)
def test_a_chart_is_xml_with_a_title_a_description_and_a_table(chart):
    root = ET.fromstring(draw(chart, "key"))
    assert [root[0].tag, root[1].tag] == ["title", "desc"] and root[0].text == chart.title
    assert root.get("aria-labelledby") == f"{root[0].get('id')} {root[1].get('id')}"
    assert "nan" not in draw(chart, "key") and chart.table.rows
    assert all(len(row) == len(chart.table.heads) for row in chart.table.rows)


def test_lines_are_thinned_and_keep_their_ends_and_peaks():
    points = [(x, float(x == 1234) - float(x == 777), None, None) for x in range(200_000)]
    (few,), said = thinned([Series("a", points)])
    assert len(few.points) <= MOST_POINTS and "200,000 points" in said
    xs = [x for x, *_ in few.points]
    assert {0, 777, 1234, 199_999} <= set(xs) and xs == sorted(xs)
    assert thinned([Series("a", points[:10])]) == ([Series("a", points[:10])], "")


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-1e-12, 1e-12], [0.049, 0.0561], [1e-9, 1e15]])
@pytest.mark.parametrize("log", [False, True])
def test_every_axis_has_marks_within_it(values, log):
    axis = Axis(values, 0.0, 100.0, log)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 26 and all(-1e-6 <= axis.at(value) <= 100 + 1e-6 for value, _ in ticks)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "3", None, [], 10**400])
def test_what_is_no_finite_number_is_none(value):
    assert number(value) is None
