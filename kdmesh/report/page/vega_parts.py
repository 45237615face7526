"""What Vega-Lite specs are made of: channels, legends and what answers to a pointer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdmesh.report.page.charts import COLOURS, LETTER, short

Spec = dict[str, Any]
ZOOM: Spec = {  # only with Ctrl, and only by a mouse: a page must scroll under wheel and finger
    "name": "zoom",
    "bind": "scales",
    "select": {
        "type": "interval",
        "zoom": "wheel![event.ctrlKey]",
        "translate": "[pointerdown[event.pointerType === 'mouse'], window:pointerup] > window:pointermove!",
    },
}


def coloured(field: str, names: Sequence[str], range: Sequence[Any] | None = None) -> Spec:
    """A channel by name: the colours of the page, in the order in which `charts` takes them, or another range."""
    colours = range or [f"var(--c{at % COLOURS})" for at, _ in enumerate(names)]
    return {"field": field, "type": "nominal", "scale": {"domain": list(names), "range": list(colours)}}


def legend_of(names: Sequence[str]) -> Spec:
    """Names in rows above, as many side by side as fit."""
    each = 40 + LETTER * max(len(short(name, 40)) for name in names)
    columns = f"max(1, floor(containerSize()[0] / {each:.0f}))"
    return {"orient": "top", "title": None, "labelLimit": 300, "columns": {"expr": columns}, "offset": 6}


def shown(field: str) -> Spec:
    """Names that were clicked on in the legend, each click one more or one less; none of them: all."""
    return {"name": "shown", "select": {"type": "point", "fields": [field], "toggle": "true"}, "bind": "legend"}


def nearest_point(fields: Sequence[str]) -> Spec:
    """The point next to the pointer."""
    select = {"type": "point", "fields": list(fields), "on": "pointermove", "clear": "pointerout", "nearest": True}
    return {"name": "at", "select": select}


def where(param: str, value: Any) -> Spec:
    """A value for what a selection holds, and for nothing where it is empty."""
    return {"param": param, "empty": False, "value": value}


def near(value: float, other: float) -> Spec:
    """A channel: one value next to the pointer, another elsewhere."""
    return {"condition": where("at", value), "value": other}


def picked(value: float, other: float) -> Spec:
    """A channel: one value for what the legend shows, another for the rest."""
    return {"condition": {"param": "shown", "value": value}, "value": other}


def told(said: str, low: float | None, high: float | None) -> str:
    """What is said, with an interval if there is one."""
    return said if low is None or high is None else f"{said} ({low:.5g} to {high:.5g})"


def few(value: float | None) -> float | None:
    """To seven digits: a spec is for the eye, the table below it has the number itself."""
    return None if value is None else float(f"{value:.7g}")
