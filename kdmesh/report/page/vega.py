"""Charts as Vega-Lite specs: what `charts` draws, in a form that answers to a pointer.

A spec holds its data and loads nothing. Colours are those of the page's style, by name (``var(--c0)``), so that a chart
follows its light and dark forms by itself. Whatever comes from a run stands in data or titles, never in an expression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kdmesh.report.page.blocks import Bars, Chart, Lines, Matrix, Points, Spans
from kdmesh.report.page.charts import (
    BOTTOM,
    CELL_NUMBERS,
    HIGH,
    LEFT,
    MOST_NAMED,
    RIGHT,
    ROLES,
    ROW,
    TOP,
    WIDE,
    Axis,
    placed,
    short,
)
from kdmesh.report.page.vega_parts import (
    ZOOM,
    Spec,
    coloured,
    few,
    legend_of,
    near,
    nearest_point,
    picked,
    shown,
    told,
    where,
)
from kdmesh.report.page.vega_search import coordinates, slice_of

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"  # a name; nothing is read from there
DASHES = {"dashed": [6, 3], "dotted": [2, 3]}


def spec(chart: Chart) -> Spec | None:
    """The chart as a Vega-Lite spec; None where it has nothing to show, or no such form."""
    forms: dict[str, Callable[[Any], Spec | None]] = {
        "lines": _lines,
        "bars": _bars,
        "points": _points,
        "matrix": _matrix,
        "spans": _spans,
        "coordinates": coordinates,
        "slice": slice_of,
    }
    made = forms[chart.kind](chart) if chart.kind in forms else None
    return None if made is None else {"$schema": SCHEMA, "width": "container", **made}


def _lines(chart: Lines) -> Spec | None:
    rows: list[Spec] = [
        {"n": one.name, "x": few(x), "y": few(y), "l": few(low), "h": few(high)}
        for one in chart.series
        for x, y, low, high in one.points
        if y is not None
    ]
    if not rows:
        return None
    many = len(chart.series) > MOST_NAMED
    names = [one.name for one in chart.series]
    x: Spec = {"field": "x", "type": "quantitative", "title": chart.x, "scale": {"zero": False, "nice": False}}
    y: Spec = {"field": "y", "type": "quantitative", "title": short(chart.y, 34), "scale": {"zero": False}}
    x["axis"] = {"labelFlush": False}
    if max(row["x"] for row in rows) - min(row["x"] for row in rows) < 8 and all(row["x"] % 1 == 0 for row in rows):
        x["axis"] |= {"tickMinStep": 1, "format": "~g"}
    legend = None if many else {**legend_of(names), "symbolType": "stroke", "symbolSize": 300}
    line: Spec = {"mark": {"type": "line", "strokeWidth": 1.2 if many else 2}, "encoding": {"x": x, "y": y}}
    if many:
        line["encoding"] |= {"detail": {"field": "n"}, "color": {"value": "var(--c0)"}, "opacity": near(1, 0.3)}
        line["encoding"]["strokeWidth"] = near(3, 1.2)
    else:
        dashes = [DASHES.get(ROLES.get(one.role, ""), [1, 0]) for one in chart.series]
        line["params"] = [shown("n")]
        line["encoding"] |= {
            "color": {**coloured("n", names), "legend": legend},
            "strokeDash": {**coloured("n", names, dashes), "legend": legend},
            "opacity": picked(1, 0.12),
        }
    dots = _dots(rows, names, x, y, legend)
    layers: list[Spec] = [line, dots]
    if not many and any(row["l"] is not None for row in rows):
        band: Spec = {"y": {**y, "field": "l"}, "y2": {"field": "h"}, "opacity": picked(0.13, 0.02)}
        band |= {"x": x, "color": {**coloured("n", names), "legend": legend}}
        layers.insert(0, {"mark": {"type": "area"}, "encoding": band})
    line.setdefault("params", []).append(ZOOM)
    return {"height": int(HIGH), "data": {"values": rows}, "layer": layers}


def _dots(rows: Sequence[Spec], names: Sequence[str], x: Spec, y: Spec, legend: Spec | None) -> Spec:
    """The points of lines: the one next to the pointer says its name and numbers. ``legend``: None of many lines."""
    many = legend is None
    between = " + (isValid(datum.l) ? ' (' + format(datum.l, '.5~g') + ' to ' + format(datum.h, '.5~g') + ')' : '')"
    said = f"datum.n + ': ' + format(datum.y, '.5~g') + ' at ' + format(datum.x, '~g'){between}"
    every = len(rows) <= 30 * len(names) and not many
    return {
        "transform": [*([] if many else [{"filter": {"param": "shown"}}]), {"calculate": said, "as": "said"}],
        "params": [nearest_point(["n"] if many else ["n", "x"])],
        "mark": {"type": "point", "filled": True, "opacity": 1},
        "encoding": {
            "x": x,
            "y": y,
            "color": {"value": "var(--c0)"} if many else {**coloured("n", names), "legend": legend},
            "size": {"value": 22} if many else {"condition": where("at", 90), "value": 22},
            "opacity": {"condition": where("at", 1), "value": 1 if every else 0},
            "tooltip": {"field": "said"},
        },
    }


def _bars(chart: Bars) -> Spec | None:
    if not chart.bars:
        return None
    roles = list(dict.fromkeys(one.role for one in chart.bars))
    rows: list[Spec] = [
        {
            "name": one.name,
            "role": one.role,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "said": told(f"{one.name}: {one.value:.5g}", one.low, one.high),
        }
        for one in chart.bars
    ]
    y: Spec = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelLimit": 170, "grid": False},
    }
    x: Spec = {"field": "value", "type": "quantitative", "title": chart.x, "scale": {"zero": chart.zero}}
    legend = legend_of(roles) if len(roles) > 1 else None
    same = {"color": {**coloured("role", roles), "legend": legend}, "opacity": picked(1, 0.15)}
    layers: list[Spec] = []
    if chart.zero:
        layers.append({"mark": {"type": "bar", "height": 12}, "encoding": {"x": x, "y": y, **same}})
    if any(one.low is not None and one.high is not None for one in chart.bars):
        layers.append({
            "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
            "mark": {"type": "rule", "strokeWidth": 1.6},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, **same},
        })  # fmt: skip
    layers.append({
        "params": [shown("role")],
        "mark": {"type": "point", "filled": True, "size": 70},
        "encoding": {"x": x, "y": y, **same, "tooltip": {"field": "said"}},
    })  # fmt: skip
    return {"height": ROW * len(rows), "data": {"values": rows}, "layer": layers}


def _points(chart: Points) -> Spec | None:
    if not chart.points:
        return None
    roles = list(dict.fromkeys(one.role for one in chart.points))
    x_axis = Axis([one.x for one in chart.points], LEFT, WIDE - RIGHT - 12, log=chart.log)
    named = placed(chart, x_axis, Axis([one.y for one in chart.points], HIGH - BOTTOM, TOP + 4))
    rows: list[Spec] = [
        {
            "name": one.name,
            "role": one.role,
            "x": one.x,
            "y": one.y,
            "front": one.front,
            "label": short(one.name, 18),
            "dx": named.get(at, (0.0, 0.0))[0],
            "dy": named.get(at, (0.0, 0.0))[1] - 4,
            "said": f"{one.name}: {one.y:.5g} at {one.x:.5g}",
        }
        for at, one in enumerate(chart.points)
    ]
    scale: Spec = {"type": "log"} if x_axis.log else {"zero": False}
    scale |= {"nice": False, "padding": 40}
    x: Spec = {"field": "x", "type": "quantitative", "title": chart.x, "scale": scale}
    x["axis"] = {"format": "~s" if max(one.x for one in chart.points) >= 1000 else "~g", "tickCount": 5}
    if x_axis.log:
        x["axis"]["values"] = [value for value, _ in x_axis.ticks()]
    y: Spec = {
        "field": "y", "type": "quantitative", "title": short(chart.y, 34),
        "scale": {"zero": False, "nice": False, "padding": 18},
    }  # fmt: skip
    at: Spec = {"x": x, "y": y}
    same = {**at, "opacity": picked(1, 0.15)}
    layers: list[Spec] = [
        {
            "transform": [{"filter": "datum.front"}],
            "mark": {"type": "line", "color": "var(--soft)", "strokeDash": [4, 3], "strokeWidth": 1.4},
            "encoding": at,
        },
        {
            "params": [shown("role"), ZOOM],
            "mark": {"type": "point", "filled": True, "size": 90},
            "encoding": {
                **same,
                "color": {**coloured("role", roles), "legend": legend_of(roles)},
                "tooltip": {"field": "said"},
            },
        },
    ]
    for side, aside in (("left", 9.0), ("right", -9.0)):
        for down in sorted({row["dy"] for row in rows if row["dx"] == aside}):
            layers.append({
                "transform": [{"filter": f"datum.dx == {aside} && datum.dy == {down}"}],
                "mark": {"type": "text", "align": side, "baseline": "middle", "dx": aside, "dy": down, "clip": True},
                "encoding": {**same, "text": {"field": "label"}},
            })  # fmt: skip
    return {"height": int(HIGH), "data": {"values": rows}, "layer": layers}


def _matrix(chart: Matrix) -> Spec | None:
    values = [value for row in chart.values for value in row if value is not None]
    if not values:
        return None
    rows: list[Spec] = [
        {
            "row": name, "column": column, "value": value, "text": _cell(value, chart.digits),
            "said": f"{name}, {column}: {value:.5g}",
        }
        for name, row in zip(chart.rows, chart.values, strict=True)
        for column, value in zip(chart.columns, row, strict=True)
        if value is not None
    ]  # fmt: skip
    least, most = min(0.0, *values), max(values) or 1.0
    signed = least < 0
    large = max(len(chart.rows), len(chart.columns))
    high = 26 if large <= CELL_NUMBERS else max(10, 20 - large // 4)
    turn = {"labelAngle": -90} if max(map(len, chart.columns)) > 3 else {"labelAngle": 0}
    axis: Spec = {"orient": "top", "labelLimit": 90, "grid": False, "domain": False, "ticks": False, **turn}
    x: Spec = {"field": "column", "type": "nominal", "sort": None, "title": chart.across or None, "axis": axis}
    axis = {"labelLimit": 165, "grid": False, "domain": False, "ticks": False}
    y: Spec = {"field": "row", "type": "nominal", "sort": None, "title": chart.down or None, "axis": axis}
    strength: Spec = {"field": "value", "type": "quantitative", "legend": None}
    if signed:
        end = max(most, -least)
        strength["scale"] = {"domain": [-end, 0, end], "range": [0.54, 0.04, 0.54]}
    else:
        strength["scale"] = {"domain": [least, most], "range": [0.04, 0.54], "zero": False}
    fill = {"condition": {"test": "datum.value < 0", "value": "var(--bad)"}, "value": "rgb(var(--cell))"}
    cell: Spec = {
        "params": [{"name": "at", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}],
        "mark": {"type": "rect", "strokeWidth": 2},
        "encoding": {
            "fill": fill,
            "fillOpacity": strength,
            "stroke": {"condition": where("at", "var(--ink)"), "value": "var(--page)"},
            "tooltip": {"field": "said"},
        },
    }
    layers: list[Spec] = [cell]
    if large <= CELL_NUMBERS:
        layers.append({"mark": {"type": "text", "fontSize": 10.5}, "encoding": {"text": {"field": "text"}}})
        layers[-1]["mark"]["tooltip"] = False
        layers[-1]["mark"]["interactive"] = False
    return {"height": high * len(chart.rows), "data": {"values": rows}, "encoding": {"x": x, "y": y}, "layer": layers}


def _spans(chart: Spans) -> Spec | None:
    if not chart.spans:
        return None
    lanes = list(dict.fromkeys(one.lane for one in chart.spans))
    roles = list(dict.fromkeys(one.role for one in chart.spans if one.end > one.begin))
    rows: list[Spec] = [
        {
            "lane": one.lane, "role": one.role, "begin": few(one.begin), "end": few(one.end),
            "said": f"{one.lane}, {one.name}: {one.begin:.1f} s to {one.end:.1f} s",
        }
        for one in chart.spans
    ]  # fmt: skip
    y: Spec = {
        "field": "lane",
        "type": "nominal",
        "sort": lanes,
        "title": None,
        "axis": {"labelLimit": 170, "grid": False},
    }
    scale: Spec = {"domainMin": 0, "nice": False}
    x: Spec = {"field": "begin", "type": "quantitative", "title": "seconds", "scale": scale}
    lasting = {
        "transform": [{"filter": "datum.end > datum.begin"}],
        "params": [{**ZOOM, "select": {**ZOOM["select"], "encodings": ["x"]}}],
        "mark": {"type": "bar", "height": 12, "cornerRadius": 2, "clip": True},
        "encoding": {
            "x": x, "x2": {"field": "end"}, "y": y, "tooltip": {"field": "said"},
            "color": {**coloured("role", roles), "legend": None},
        },
    }  # fmt: skip
    mark = {"condition": {"test": "datum.role == 'resumed'", "value": "var(--good)"}, "value": "var(--bad)"}
    moment = {
        "transform": [{"filter": "datum.end <= datum.begin"}],
        "mark": {"type": "point", "shape": "diamond", "filled": True, "size": 110, "clip": True},
        "encoding": {"x": x, "y": y, "fill": mark, "tooltip": {"field": "said"}},
    }
    moments = [moment] if any(row["end"] <= row["begin"] for row in rows) else []
    return {"height": ROW * len(lanes), "data": {"values": rows}, "layer": [lasting, *moments]}


def _cell(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}".replace("-", "−")
    return text.replace("0.", ".", 1) if text.lstrip("−").startswith("0.") else text
