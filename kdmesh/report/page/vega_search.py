"""What a search tried as Vega-Lite specs: parallel coordinates over all settings, and a slice for each of them."""

from __future__ import annotations

from kdmesh.report.page.blocks import Coordinates, Slice
from kdmesh.report.page.charts import HIGH, Axis, short
from kdmesh.report.page.coordinates import BOTTOM, DENSE, TOP, Place, tails, told
from kdmesh.report.page.vega_parts import Spec, coloured, few, legend_of, near, nearest_point, picked, shown

MOST = 5  # scales that stand beside each other in a column; more are drawn without an answer to a pointer
FLOOR = HIGH - BOTTOM
FATES = {"chosen": "var(--c1)", "tried": "var(--c0)", "stopped early": "var(--c0)", "failed": "var(--c7)"}
DASHES = {"chosen": [1, 0], "tried": [1, 0], "stopped early": [6, 3], "failed": [2, 3]}


def coordinates(chart: Coordinates) -> Spec | None:
    """A line for each point across all scales; the one next to the pointer stands out and says what it is."""
    known = [one.value for one in chart.traces if one.value is not None]
    if not known or len(chart.scales) > MOST:
        return None
    figure, last = Axis(known, FLOOR, TOP), len(chart.scales)
    places = [Place(scale, [one.at[at] for one in chart.traces], FLOOR, TOP) for at, scale in enumerate(chart.scales)]
    rows: list[Spec] = []
    for number, one in enumerate(chart.traces):
        ys = [place.at(value) for place, value in zip(places, one.at, strict=True)]
        ys.append(FLOOR + 12 if one.value is None else figure.at(one.value))
        fate = "chosen" if one.chosen else "failed" if one.value is None else "stopped early" if one.early else "tried"
        rows += [{"n": number, "x": x, "y": few(y), "fate": fate, "said": told(one)} for x, y in enumerate(ys)]
    fates = [fate for fate in FATES if any(row["fate"] == fate for row in rows)]
    marks = [{"x": x, "y": few(y), "mark": mark} for x, place in enumerate(places) for y, mark in place.marks()]
    marks += [{"x": last, "y": few(figure.at(value)), "mark": mark} for value, mark in figure.ticks()]
    if "failed" in fates:
        marks.append({"x": last, "y": FLOOR + 12, "mark": "failed"})
    heads = [*tails([scale.name for scale in chart.scales]), chart.y]
    axes = [{"x": x, "y": TOP, "end": FLOOR, "head": short(head, 24)} for x, head in enumerate(heads)]
    x: Spec = {"field": "x", "type": "quantitative", "axis": None}
    x["scale"] = {"domain": [-0.45, last + 0.45], "nice": False, "zero": False}
    y: Spec = {"field": "y", "type": "quantitative", "axis": None, "scale": {"domain": [HIGH, 0], "nice": False}}
    legend = {**legend_of(fates), "symbolType": "stroke", "symbolSize": 300} if len(fates) > 1 else None
    colour = {**coloured("fate", fates, [FATES[fate] for fate in fates]), "legend": legend}
    dash = {**coloured("fate", fates, [DASHES[fate] for fate in fates]), "legend": legend}
    faint = 0.25 if len(chart.traces) > DENSE else 0.6
    line: Spec = {
        "params": [shown("fate")],
        "mark": {"type": "line", "strokeWidth": 1.5},
        "encoding": {
            "x": x, "y": y, "detail": {"field": "n"}, "color": colour, "strokeDash": dash,
            "opacity": picked(faint, 0.05),
        },
    }  # fmt: skip
    above: Spec = {  # the chosen one, and the one next to the pointer
        "transform": [{"filter": {"or": ["datum.fate == 'chosen'", {"param": "at", "empty": False}]}}],
        "mark": {"type": "line", "strokeWidth": 3},
        "encoding": {"x": x, "y": y, "detail": {"field": "n"}, "color": colour},
    }
    dots: Spec = {
        "params": [nearest_point(["n"])],
        "mark": {"type": "point", "filled": True, "size": 30},
        "encoding": {"x": x, "y": y, "color": colour, "opacity": near(1, 0), "tooltip": {"field": "said"}},
    }
    rule: Spec = {
        "data": {"values": axes},
        "mark": {"type": "rule", "color": "var(--soft)"},
        "encoding": {"x": x, "y": y, "y2": {"field": "end"}},
    }
    head: Spec = {
        "data": {"values": axes},
        "mark": {"type": "text", "color": "var(--soft)", "baseline": "top", "dy": 18},
        "encoding": {"x": x, "y": {**y, "field": "end"}, "text": {"field": "head"}},
    }
    written = [
        {
            "data": {"values": marks},
            "transform": [{"filter": f"datum.x {which} {last}"}],
            "mark": {"type": "text", "align": align, "baseline": "middle", "dx": aside},
            "encoding": {"x": x, "y": y, "text": {"field": "mark"}},
        }
        for which, align, aside in (("<", "right", -6), ("==", "left", 6))
    ]
    layers = [line, above, rule, head, *written, dots]
    return {"height": int(HIGH) + 16, "data": {"values": rows}, "layer": layers, "view": {"stroke": None}}


def slice_of(chart: Slice) -> Spec | None:
    """Dots over one scale, those of an arm in its colour; what failed has no dot, the chosen ones have a ring."""
    (scale,) = chart.scales
    roles = list(dict.fromkeys(one.role for one in chart.traces))
    rows: list[Spec] = [
        {
            "x": one.at[0], "y": few(one.value), "role": one.role, "said": told(one),
            "chosen": one.chosen, "early": one.early,
        }
        for one in chart.traces
        if one.value is not None
    ]  # fmt: skip
    if not rows:
        return None
    x: Spec = {"field": "x", "type": "quantitative", "title": short(scale.name, 60)}
    if scale.marks:
        x |= {"type": "nominal", "sort": list(scale.marks), "axis": {"labelAngle": 0, "grid": False}}
        x["scale"] = {"domain": list(scale.marks)}
    else:
        x["scale"] = {"type": "log"} if scale.log else {"zero": False}
        x["scale"] |= {"nice": False, "padding": 24}
        x["axis"] = {"format": "~g", "tickCount": 5}
    y: Spec = {"field": "y", "type": "quantitative", "title": short(chart.y, 34), "scale": {"zero": False}}
    same: Spec = {"x": x, "y": y, "color": {**coloured("role", roles), "legend": None}, "opacity": picked(1, 0.12)}
    if scale.marks and len(roles) > 1:
        same["xOffset"] = {"field": "role", "sort": roles}
    if len(roles) > 1:
        same["color"]["legend"] = legend_of(roles)
    ring: Spec = {
        "transform": [{"filter": "datum.chosen"}],
        "mark": {"type": "point", "filled": False, "size": 260, "strokeWidth": 2},
        "encoding": same,
    }
    early: Spec = {
        "transform": [{"filter": "datum.early"}],
        "mark": {"type": "point", "filled": False, "size": 60},
        "encoding": {**same, "tooltip": {"field": "said"}},
    }
    dots: Spec = {
        "params": [shown("role")],
        "transform": [{"filter": "!datum.early"}],
        "mark": {"type": "point", "filled": True, "size": 60},
        "encoding": {**same, "tooltip": {"field": "said"}},
    }
    layers = [ring, dots, *([early] if any(row["early"] for row in rows) else [])]
    return {"height": int(HIGH), "data": {"values": rows}, "layer": layers}
