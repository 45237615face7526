"""What a search tried, as static SVG: parallel coordinates over all settings, and a slice for each of them."""

from __future__ import annotations

from collections.abc import Sequence

from kdmesh.report.drawing.svg import xml
from kdmesh.report.page.blocks import Chart, Coordinates, Scale, Slice, Trace
from kdmesh.report.page.charts import COLOURS, WIDE, Axis, colour

KINDS = (Coordinates.kind, Slice.kind)
HIGH, TOP, BOTTOM = 270.0, 30.0, 26.0
SIDE, EACH = 80.0, 150.0  # beside the first and last axis, and between two
LEFT, RIGHT = 52.0, 16.0  # of a slice
SPREAD = 9.0  # between dots of different arms over one mark
MARKS = 14  # of a scale that are all written; of more, some
DENSE = 30  # lines of which each is drawn faintly


def draw(chart: Chart, key: str) -> str:
    """The chart as one SVG element. ``key``: begins its ids; one of its own for each on a page."""
    assert isinstance(chart, Coordinates)
    if all(one.value is None for one in chart.traces):
        parts, wide, high, form = [_text(0, 20, "nothing was measured", "soft")], WIDE, 40.0, "chart"
    elif isinstance(chart, Slice):
        parts, wide, high, form = _slice(chart), WIDE, HIGH, "chart"
    else:
        wide, high, form = _width(chart), HIGH + 16, "chart across"
        parts = _lines(chart, wide)
    failed = sum(one.value is None for one in chart.traces)
    said = f"{len(chart.traces)} points over {', '.join(one.name for one in chart.scales)}: {chart.y}. "
    said += f"{failed} have no figure. " if failed else ""
    drawn = "".join(
        [
            f'<svg class="{form}" role="img" viewBox="0 0 {wide:g} {high:g}" width="{wide:g}" '
            f'aria-labelledby="{key}-t {key}-d"><title id="{key}-t">{xml(chart.title)}</title>'
            f'<desc id="{key}-d">{xml(said)}The table below has the numbers.</desc>',
            *parts,
            "</svg>",
        ]
    )
    if form == "chart":
        return drawn
    label = f"{xml(chart.title)}, a drawing"  # it may be wider than its column: keys scroll it
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{drawn}</div>'


def _width(chart: Coordinates) -> float:
    return max(WIDE, 2 * SIDE + EACH * len(chart.scales))


def _lines(chart: Coordinates, wide: float) -> list[str]:
    """Axes side by side, the figure's own at the right; the chosen line above all others."""
    floor, top = HIGH - BOTTOM, TOP
    step = (wide - 2 * SIDE) / len(chart.scales)
    places = [
        Place(scale, [one.at[number] for one in chart.traces], floor, top) for number, scale in enumerate(chart.scales)
    ]
    names = tails([scale.name for scale in chart.scales])
    known = [one.value for one in chart.traces if one.value is not None]
    figure, failed = Axis(known, floor, top), any(one.value is None for one in chart.traces)
    parts = []
    for one in sorted(chart.traces, key=lambda one: (one.chosen, one.value is not None)):
        ys = [place.at(value) for place, value in zip(places, one.at, strict=True)]
        ys.append(floor + 12 if one.value is None else figure.at(one.value))
        path = " ".join(f"{SIDE + step * number:.1f},{y:.1f}" for number, y in enumerate(ys))
        style = _style(one, len(chart.traces))
        parts.append(f'<polyline class="line {style}" points="{path}"><title>{xml(told(one))}</title></polyline>')
    for number, place in enumerate(places):
        x = SIDE + step * number
        parts += [f'<path class="axis" d="M{x:.1f} {top:g}V{floor:g}"/>', _middle(x, floor + 30, names[number])]
        parts += [_text(x - 6, y + 4, mark, "on", "end") for y, mark in place.marks()]
    x = wide - SIDE
    parts += [f'<path class="axis" d="M{x:.1f} {top:g}V{floor:g}"/>', _middle(x, floor + 30, chart.y)]
    parts += [_text(x + 6, figure.at(value) + 4, mark, "on") for value, mark in figure.ticks()]
    if failed:
        parts.append(_text(x + 6, floor + 16, "failed", "on"))
    return parts


def _slice(chart: Slice) -> list[str]:
    """Dots over one scale, those of an arm in its colour; what failed has no dot."""
    (scale,), floor, top = chart.scales, HIGH - BOTTOM - 14, TOP
    place = Place(scale, [one.at[0] for one in chart.traces], LEFT + 24, WIDE - RIGHT - 24)
    figure = Axis([one.value for one in chart.traces if one.value is not None], floor, top)
    parts = [f'<path class="axis" d="M{LEFT:g} {floor:g}H{WIDE - RIGHT:g}"/>']
    for value, mark in figure.ticks():
        y = figure.at(value)
        parts += [
            f'<path class="grid" d="M{LEFT:g} {y:.1f}H{WIDE - RIGHT:g}"/>',
            _text(LEFT - 6, y + 4, mark, "soft", "end"),
        ]
    parts += [_text(x, floor + 15, mark, "soft", "middle") for x, mark in place.marks()]
    parts += [_middle((LEFT + WIDE - RIGHT) / 2, HIGH - 6, scale.name, 60)]
    arms = list(dict.fromkeys(one.role for one in chart.traces))
    x = 4.0
    for number, arm in enumerate(arms if len(arms) > 1 else []):
        parts.append(f'<circle class="dot {colour(number)}" cx="{x + 6:.1f}" cy="12" r="5"/>')
        parts.append(_text(x + 16, 16, arm))
        x += 30 + 7.3 * len(arm)
    for one in sorted(chart.traces, key=lambda one: one.chosen):
        if one.value is None:
            continue
        aside = SPREAD * (arms.index(one.role) - (len(arms) - 1) / 2) if scale.marks else 0.0
        at = f'cx="{place.at(one.at[0]) + aside:.1f}" cy="{figure.at(one.value):.1f}"'
        style = colour(arms.index(one.role) % COLOURS)
        dot = "whisker" if one.early else "dot"
        parts.append(f'<circle class="{dot} {style}" {at} r="4"><title>{xml(told(one))}</title></circle>')
        if one.chosen:
            parts.append(f'<circle class="whisker {style}" {at} r="8"/>')
    return parts


class Place:
    """Where the values of a scale stand on a line from ``begin`` to ``end``."""

    def __init__(self, scale: Scale, values: Sequence[str | float], begin: float, end: float) -> None:
        """``values``: those that stand on it."""
        self.scale, self.begin, self.end = scale, begin, end
        numbers = [value for value in values if not isinstance(value, str)]
        self.axis = None if scale.marks else Axis(numbers or [0.0], begin, end, scale.log)

    def at(self, value: str | float) -> float:
        """Where a value stands; one that is none of the marks, at the end."""
        if self.axis is not None:
            return self.axis.at(float(value))
        marks = list(self.scale.marks)
        number = marks.index(str(value)) if value in marks else len(marks) - 1
        return self.begin + (self.end - self.begin) * (number / (len(marks) - 1) if len(marks) > 1 else 0.5)

    def marks(self) -> list[tuple[float, str]]:
        """What is written beside the line, and where."""
        if self.axis is not None:
            return [(self.axis.at(value), text) for value, text in self.axis.ticks()]
        every = -(-len(self.scale.marks) // MARKS)
        return [(self.at(mark), _short(mark, 10)) for mark in self.scale.marks[::every]]


def _style(one: Trace, many: int) -> str:
    if one.chosen:
        return "c1 chosen"
    if one.value is None:
        return "c7 dotted"
    return f"c0{' dashed' if one.early else ''}{' many' if many > DENSE else ' some'}"


def told(one: Trace) -> str:
    """A point in words: its arm, name, values, figure and fate."""
    figure = "no figure" if one.value is None else f"{one.value:.5g}"
    values = ", ".join(value if isinstance(value, str) else f"{value:.4g}" for value in one.at)
    return f"{one.role} {one.name} ({values}): {figure}{f', {one.fate}' if one.fate else ''}".strip()


def _middle(x: float, y: float, text: str, most: int = 24) -> str:
    return _text(x, y, _short(text, most), "soft", "middle")


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{xml(text)}</text>'


def tails(paths: Sequence[str]) -> list[str]:
    """Each path by as many of its last parts as tell it from the others."""
    found = []
    for path in paths:
        parts = path.split(".")
        sizes = range(1, len(parts) + 1)
        tails = [".".join(parts[-size:]) for size in sizes]
        alone = (tail for tail in tails if sum(f".{other}".endswith(f".{tail}") for other in paths) == 1)
        found.append(next(alone, path))
    return found


def _short(text: str, most: int) -> str:
    """The end of a text that is too long: of a path that is what tells it from others."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
