"""Small static charts as SVG, of our own: they need no library, no network and no JavaScript.

A chart is `WIDE` units wide, about a column of the page, so that its text is as large as the page's on any screen.
Colours are classes (``c0`` to ``c7``) of the page's style, light and dark; what tells lines apart is their dashes too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count as counter

from kdmesh.report.drawing.svg import xml
from kdmesh.report.page.blocks import Bars, Chart, Lines, Matrix, Points, Spans

WIDE, HIGH = 420.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 8.0, 38.0
ROW = 20.0
LETTER = 7.3  # width of a letter, rather too much than too little: fonts differ
COLOURS = 8
MOST_NAMED = 12  # lines that are told apart; more are drawn alike
MOST_LABELS = 40  # points of a scatter that are all named; of more, those of the front
CELL_NUMBERS = 12  # rows or columns of a matrix whose cells hold their numbers
ROLES = {"consensus": "dotted", "teacher": "dashed"}


def draw(chart: Chart, key: str) -> str:
    """The chart as one SVG element. ``key``: begins its ids; one of its own for each on a page."""
    forms = {"lines": _lines, "bars": _bars, "points": _points, "matrix": _matrix, "spans": _spans}
    height, parts = forms[chart.kind](chart)  # type: ignore[operator]
    return "".join(
        [
            f'<svg class="chart" role="img" viewBox="0 0 {_n(WIDE)} {_n(height)}" '
            f'aria-labelledby="{key}-t {key}-d"><title id="{key}-t">{xml(chart.title)}</title>'
            f'<desc id="{key}-d">{xml(in_words(chart))}</desc>',
            *parts,
            "</svg>",
        ]
    )


def colour(at: int) -> str:
    """The class of the colour of a number."""
    return f"c{at % COLOURS}"


def in_words(chart: Chart) -> str:
    """The chart in a sentence; its numbers stand in the table below it."""
    match chart:
        case Lines():
            what = f"{len(chart.series)} lines: {chart.y} over {chart.x}"
        case Bars():
            what = f"{len(chart.bars)} values of {chart.x}"
        case Points():
            what = f"{len(chart.points)} points: {chart.y} against {chart.x}"
        case Matrix():
            what = f"{len(chart.rows)} rows, {len(chart.columns)} columns"
        case Spans():
            what = f"{len(chart.spans)} spans of time"
        case _:
            raise ValueError(f"{chart.kind} is drawn elsewhere")
    return f"{what}. The table below has the numbers."


def _lines(chart: Lines) -> tuple[float, list[str]]:
    many = len(chart.series) > MOST_NAMED
    legend, top = ([], TOP) if many else _legend([(one.name, one.role) for one in chart.series])
    points = [point for one in chart.series for point in one.points if point[1] is not None]
    height = HIGH + top - TOP
    if not points:
        return 40.0, [_text(0, 20, "nothing was measured", "soft")]
    x_axis = Axis([x for x, *_ in points], LEFT, WIDE - RIGHT)
    ends = [value for _, y, low, high in points for value in (y, low, high) if value is not None]
    y_axis = Axis(ends, height - BOTTOM, top)
    parts = [*legend, *_frame(x_axis, y_axis, chart.x, chart.y, height, top)]
    for at, one in enumerate(chart.series):
        known = [(x, y, low, high) for x, y, low, high in one.points if y is not None]
        style = "c0 many" if many else f"{colour(at)} {ROLES.get(one.role, '')}"
        band = [(x, low, high) for x, _, low, high in known if low is not None and high is not None]
        if len(band) > 1 and not many:
            edge = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
            path = " ".join(f"{_n(x_axis.at(x))},{_n(y_axis.at(y))}" for x, y in edge)
            parts.append(f'<polygon class="band {colour(at)}" points="{path}"/>')
        path = " ".join(f"{_n(x_axis.at(x))},{_n(y_axis.at(y))}" for x, y, *_ in known)
        if len(known) > 1:
            parts.append(f'<polyline class="line {style}" points="{path}"><title>{xml(one.name)}</title></polyline>')
        if len(known) <= 30 and not many:
            parts += [
                f'<circle class="dot {colour(at)}" cx="{_n(x_axis.at(x))}" cy="{_n(y_axis.at(y))}" r="2.4">'
                f"<title>{xml(f'{one.name}: {y:.5g} at {x:g}')}</title></circle>"
                for x, y, *_ in known
            ]
    return height, parts


def _bars(chart: Bars) -> tuple[float, list[str]]:
    names = [short(one.name, 24) for one in chart.bars]
    left = min(190.0, 16 + LETTER * max(map(len, names), default=0))
    roles = list(dict.fromkeys(one.role for one in chart.bars))
    legend, top = _legend([(role, "") for role in roles], dots=True) if len(roles) > 1 else ([], TOP)
    height = top + ROW * len(chart.bars) + BOTTOM
    ends = [value for one in chart.bars for value in (one.value, one.low, one.high) if value is not None]
    if not ends:
        return 40.0, [_text(0, 20, "nothing was measured", "soft")]
    axis = Axis(ends + ([0.0] if chart.zero else []), left, WIDE - RIGHT)
    floor = height - BOTTOM
    middle = (left + WIDE - RIGHT) / 2
    parts = [*legend, *_ticks_below(axis, floor, top), _text(middle, height - 6, chart.x, "soft", "middle")]
    for at, (one, name) in enumerate(zip(chart.bars, names, strict=True)):
        y, x = top + ROW * (at + 0.5), axis.at(one.value)
        style = colour(roles.index(one.role))
        parts.append(_text(left - 8, y + 4, name, "", "end"))
        if chart.zero:
            zero = axis.at(0.0)
            parts.append(_rect(min(zero, x), y - 6, max(abs(x - zero), 0.8), 12, f"bar {style}"))
        if one.low is not None and one.high is not None:
            a, b = axis.at(one.low), axis.at(one.high)
            path = f"M{_n(a)} {_n(y)}H{_n(b)}M{_n(a)} {_n(y - 4)}v8M{_n(b)} {_n(y - 4)}v8"
            parts.append(f'<path class="whisker {style}" d="{path}"/>')
        told = f"{one.name}: {one.value:.5g}"
        parts.append(f'<circle class="dot {style}" cx="{_n(x)}" cy="{_n(y)}" r="4"><title>{xml(told)}</title></circle>')
    return height, parts


def _points(chart: Points) -> tuple[float, list[str]]:
    roles = list(dict.fromkeys(one.role for one in chart.points))
    legend, top = _legend([(role, "") for role in roles], dots=True)
    height = HIGH + top - TOP
    x_axis = Axis([one.x for one in chart.points], LEFT, WIDE - RIGHT - 12, log=chart.log)
    y_axis = Axis([one.y for one in chart.points], height - BOTTOM, top + 4)
    parts = [*legend, *_frame(x_axis, y_axis, chart.x, chart.y, height, top)]
    front = sorted((one for one in chart.points if one.front), key=lambda one: one.x)
    if len(front) > 1:
        path = " ".join(f"{_n(x_axis.at(one.x))},{_n(y_axis.at(one.y))}" for one in front)
        parts.append(f'<polyline class="front" points="{path}"/>')
    named = placed(chart, x_axis, y_axis)
    for at, one in enumerate(chart.points):
        x, y = x_axis.at(one.x), y_axis.at(one.y)
        style, told = colour(roles.index(one.role)), f"{one.name}: {one.y:.5g} at {one.x:.5g}"
        parts.append(f'<circle class="dot {style}" cx="{_n(x)}" cy="{_n(y)}" r="5"><title>{xml(told)}</title></circle>')
        if at in named:
            aside, down = named[at]
            parts.append(_text(x + aside, y + down, short(one.name, 18), "", "end" if aside < 0 else "start"))
    return height, parts


def placed(chart: Points, x_axis: Axis, y_axis: Axis) -> dict[int, tuple[float, float]]:
    """The points, by their number, whose names stand beside them without covering each other, and how far from them."""
    taken: list[tuple[float, float, float]] = []
    found: dict[int, tuple[float, float]] = {}
    for at, one in enumerate(chart.points):
        if len(chart.points) > MOST_LABELS and not one.front:
            continue
        x, y = x_axis.at(one.x), y_axis.at(one.y)
        wide = LETTER * len(short(one.name, 18))
        before = x + 9 + wide > WIDE
        begin = x - 9 - wide if before else x + 9
        for shift in (4.0, -7.0, 15.0):
            if all(abs(y + shift - b) > 11 or begin > a + w or begin + wide < a for a, b, w in taken):
                taken.append((begin, y + shift, wide))
                found[at] = (-9.0 if before else 9.0, shift)
                break
    return found


def _matrix(chart: Matrix) -> tuple[float, list[str]]:
    names = [short(name, 22) for name in chart.rows]
    left = 20 + min(165.0, LETTER * max(map(len, (chart.down, *names))))
    size = min(34.0, (WIDE - left - 4) / max(1, len(chart.columns)))
    tall = min(size, 26.0) if size > 12 else size
    known = [value for row in chart.values for value in row if value is not None]
    least, most = min([0.0, *known]), max(known, default=1.0) or 1.0
    signed = least < 0  # what is below 0 has a colour of its own
    across = [short(name, 10) for name in chart.columns]
    numbers = max(len(chart.rows), len(chart.columns)) <= CELL_NUMBERS
    labelled = size >= 9
    head = 26 + (6.4 * max(map(len, across), default=0) if labelled and max(map(len, across), default=0) > 3 else 12)
    parts = [_text(left, 11, chart.across, "soft"), _text(left - 6, 11, chart.down, "soft", "end")]
    for at, name in enumerate(across if labelled else []):
        x = left + size * (at + 0.5)
        turned = f' transform="rotate(-90 {_n(x + 4)} {_n(head - 5)})"' if head > 39 else ""
        anchor = "start" if turned else "middle"
        where = x + 4 if turned else x
        parts.append(f'<text x="{_n(where)}" y="{_n(head - 5)}" text-anchor="{anchor}"{turned}>{xml(name)}</text>')
    for down, (name, row) in enumerate(zip(names, chart.values, strict=True)):
        y = head + tall * down
        if tall >= 9:
            parts.append(_text(left - 6, y + tall / 2 + 4, name, "", "end"))
        for at, value in enumerate(row):
            if value is None:
                continue
            strength = abs(value) / max(most, -least) if signed else (value - least) / (most - least or 1.0)
            told = f"{chart.rows[down]}, {chart.columns[at]}: {value:.5g}"
            x, style = left + size * at, "cell minus" if value < 0 else "cell"
            parts.append(
                f'<rect class="{style}" x="{_n(x)}" y="{_n(y)}" width="{_n(size - 1)}" height="{_n(tall - 1)}" '
                f'fill-opacity="{0.04 + 0.5 * strength:.2f}"><title>{xml(told)}</title></rect>'
            )
            if numbers and size > 22:
                text = f"{value:,.{chart.digits}f}"
                text = text.replace("0.", ".", 1).replace("-", "−") if text.lstrip("-").startswith("0.") else text
                parts.append(_text(x + (size - 1) / 2, y + tall / 2 + 3.5, text, "small", "middle"))
    return head + tall * len(chart.rows) + 6, parts


def _spans(chart: Spans) -> tuple[float, list[str]]:
    lanes = list(dict.fromkeys(one.lane for one in chart.spans))
    names = [short(name, 22) for name in lanes]
    left = min(175.0, 16 + LETTER * max(map(len, names), default=0))
    height = TOP + ROW * len(lanes) + BOTTOM
    axis = Axis([0.0, *(one.end for one in chart.spans)], left, WIDE - RIGHT)
    parts = [*_ticks_below(axis, height - BOTTOM, TOP)]
    parts.append(_text((left + WIDE) / 2, height - 6, "seconds", "soft", "middle"))
    parts += [_text(left - 8, TOP + ROW * (at + 0.5) + 4, name, "", "end") for at, name in enumerate(names)]
    roles = list(dict.fromkeys(one.role for one in chart.spans if one.end > one.begin))
    for one in chart.spans:
        y, x = TOP + ROW * lanes.index(one.lane), axis.at(one.begin)
        told = f"<title>{xml(f'{one.lane}, {one.name}: {one.begin:.1f} s to {one.end:.1f} s')}</title>"
        if one.end > one.begin:
            wide = max(1.5, axis.at(one.end) - x)
            place = f'x="{_n(x)}" y="{_n(y + 4)}" width="{_n(wide)}" height="12"'
            parts.append(f'<rect class="bar {colour(roles.index(one.role))}" {place} rx="2">{told}</rect>')
        else:
            parts.append(f'<path class="mark {one.role}" d="M{_n(x)} {_n(y + 3)}l6 7 -6 7 -6 -7z">{told}</path>')
    return height, parts


class Axis:
    """Where values stand on a line from ``begin`` to ``end``, and which of them are marked."""

    def __init__(self, values: Sequence[float], begin: float, end: float, log: bool = False) -> None:
        self.log = log and min(values) > 0
        scaled = [self._scale(value) for value in values]
        low, high = min(scaled), max(scaled)
        room = (high - low) * 0.04 or (abs(high) * 0.05 or 1.0)
        self.low, self.high, self.begin, self.end = low - room, high + room, begin, end

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def at(self, value: float) -> float:
        """Where a value stands."""
        return self.begin + (self._scale(value) - self.low) / (self.high - self.low) * (self.end - self.begin)

    def ticks(self) -> list[tuple[float, str]]:
        """About five round values within, as they are written."""
        step = _round_step((self.high - self.low) / 5)
        if self.log:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1, max(1, round(step)))
            for factors in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
                values = [factor * 10.0**power for power in powers for factor in factors]
                marked = [(value, _si(value)) for value in values if self.low <= math.log10(value) <= self.high]
                if len(marked) > 2:
                    return marked
            low, high = 10**self.low, 10**self.high  # so close together that they stand as on a plain axis
            step = _round_step((high - low) / 4)
            return [(at * step, _si(at * step)) for at in range(math.ceil(low / step), math.floor(high / step) + 1)]
        first = math.ceil(self.low / step)
        digits = max(0, -math.floor(math.log10(step)))
        found: list[tuple[float, str]] = []
        for at in counter(first):
            value = at * step
            if value > self.high or len(found) > 12:
                return found
            found.append((value, _si(value) if step >= 100 else f"{value:.{digits}f}".replace("-", "−")))
        return found


def _round_step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough * 0.999)


def _si(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _legend(names: Sequence[tuple[str, str]], dots: bool = False) -> tuple[list[str], float]:
    """Marks with names in rows, and how far down what follows begins."""
    parts: list[str] = []
    x, y = 4.0, 12.0
    for at, (name, role) in enumerate(names):
        cut = short(name, 40)
        wide = 36 + LETTER * len(cut)
        if x > 4.0 and x + wide > WIDE:
            x, y = 4.0, y + 17
        style = f"{colour(at)} {ROLES.get(role, '')}"
        if dots:
            parts.append(f'<circle class="dot {style}" cx="{_n(x + 10)}" cy="{_n(y - 4)}" r="5"/>')
        else:
            parts.append(f'<path class="line {style}" d="M{_n(x)} {_n(y - 4)}h20"/>')
        parts.append(_text(x + 25, y, cut))
        x += wide
    return parts, y + 12


def _frame(x_axis: Axis, y_axis: Axis, x: str, y: str, height: float, top: float) -> list[str]:
    parts = _ticks_below(x_axis, height - BOTTOM, top)
    for value, text in y_axis.ticks():
        at = y_axis.at(value)
        parts.append(f'<path class="grid" d="M{_n(LEFT)} {_n(at)}H{_n(WIDE - RIGHT)}"/>')
        parts.append(_text(LEFT - 6, at + 4, text, "soft", "end"))
    parts.append(_text((LEFT + WIDE - RIGHT) / 2, height - 6, x, "soft", "middle"))
    middle = (top + height - BOTTOM) / 2
    parts.append(
        f'<text class="soft" x="11" y="{_n(middle)}" text-anchor="middle" '
        f'transform="rotate(-90 11 {_n(middle)})">{xml(short(y, 34))}</text>'
    )
    return parts


def _ticks_below(axis: Axis, floor: float, top: float) -> list[str]:
    parts = [f'<path class="axis" d="M{_n(axis.begin)} {_n(floor)}H{_n(axis.end)}"/>']
    for value, text in axis.ticks():
        at = axis.at(value)
        parts.append(f'<path class="grid" d="M{_n(at)} {_n(top)}V{_n(floor)}"/>')
        parts.append(_text(at, floor + 15, text, "soft", "middle"))
    return parts


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    turn = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text{style} x="{_n(x)}" y="{_n(y)}"{turn}>{xml(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"/>'


def short(text: str, most: int) -> str:
    """The text, cut where it has more letters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _n(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")
