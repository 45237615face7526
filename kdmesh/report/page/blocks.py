"""What a page is made of, as plain data: words, tables and charts. Templates and charts give it a form; nothing else
does, so that everything a page prints can be looked at, and tested, without a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PAGE = "report.html"  # a page in the folder that it is of
MOST_POINTS = 6000  # of all lines of a chart together
LEAST_EACH = 12  # of one line, however many lines there are
TABLED = 12  # lines whose every point stands in the table below; of more it says first, least, most and last


@dataclass(frozen=True)
class Value:
    """A number, and how it is written. The page has both: the number itself in an attribute."""

    value: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Link:
    """Words that lead to another file, by its address from where the page lies."""

    text: str
    href: str

    def __str__(self) -> str:
        return self.text


Cell = str | Value | Link | None
Words = Sequence[str | Value]
"""A sentence or several, with their numbers as such."""


@dataclass(frozen=True)
class Table:
    """A table; the first column names its rows. ``note``: below it."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    kind = "table"

    def without_empty(self) -> Table:
        """The table without columns in which no row says anything."""
        kept = [at for at in range(len(self.heads)) if at == 0 or any(row[at] not in (None, "") for row in self.rows)]
        rows = [[row[at] for at in kept] for row in self.rows]
        return Table(self.title, [self.heads[at] for at in kept], rows, self.note)


@dataclass(frozen=True)
class Series:
    """A line of a chart: points ``(x, y, low, high)``; y is None where nothing was measured, low and high where there
    is one value only. ``role``: of whom it tells, which decides how the line is dashed."""

    name: str
    points: Sequence[tuple[float, float | None, float | None, float | None]]
    role: str = ""


@dataclass(frozen=True)
class Lines:
    """Lines over one x. ``x``, ``y``: what the axes measure."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    note: str = ""
    kind = "lines"

    @property
    def table(self) -> Table:
        """The same as a table."""
        if len(self.series) > TABLED:
            rows: list[list[Cell]] = []
            for one in self.series:
                known = [y for _, y, *_ in one.points if y is not None]
                ends = (known[0], min(known), max(known), known[-1]) if known else (None,) * 4
                rows.append([one.name, *map(plain, ends)])
            return Table(self.title, ("", "first", "lowest", "highest", "last"), rows)
        xs = sorted({x for one in self.series for x, *_ in one.points})
        found = [{x: y for x, y, *_ in one.points} for one in self.series]
        rows = [[plain(x), *(plain(ys.get(x)) for ys in found)] for x in xs]
        return Table(self.title, (self.x, *(one.name for one in self.series)), rows)


@dataclass(frozen=True)
class Bar:
    """A bar: its value, and the ends of its interval if there is one. ``role``: of whom it tells."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    role: str = ""


@dataclass(frozen=True)
class Bars:
    """Values side by side, as dots with intervals (``zero``: as bars from 0)."""

    title: str
    x: str
    bars: Sequence[Bar]
    note: str = ""
    zero: bool = False
    kind = "bars"

    @property
    def table(self) -> Table:
        """The same as a table."""
        rows = [[one.name, one.role, plain(one.value), plain(one.low), plain(one.high)] for one in self.bars]
        return Table(self.title, ("", "", self.x, "from", "to"), rows).without_empty()


@dataclass(frozen=True)
class Point:
    """A point of a scatter."""

    name: str
    x: float
    y: float
    role: str = ""
    front: bool = False


@dataclass(frozen=True)
class Points:
    """Quality against a cost; ``front``: no other point is both better and cheaper. ``log``: the x axis is."""

    title: str
    x: str
    y: str
    points: Sequence[Point]
    note: str = ""
    log: bool = False
    kind = "points"

    @property
    def table(self) -> Table:
        """The same as a table."""
        rows = [
            [one.name, one.role, plain(one.x), plain(one.y), "yes" if one.front else "no"]
            for one in sorted(self.points, key=lambda one: one.x)
        ]
        return Table(self.title, ("", "role", self.x, self.y, "none is both better and cheaper"), rows)


@dataclass(frozen=True)
class Matrix:
    """Numbers by row and column, ``high`` the darkest; ``digits`` after the point."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    down: str = ""
    across: str = ""
    note: str = ""
    digits: int = 2
    kind = "matrix"

    @property
    def table(self) -> Table:
        """The same as a table."""
        head = f"{self.down} \\ {self.across}" if self.down or self.across else ""
        rows = [[name, *map(plain, values)] for name, values in zip(self.rows, self.values, strict=True)]
        return Table(self.title, (head, *self.columns), rows)


@dataclass(frozen=True)
class Span:
    """Something that took a time, in seconds; a moment where both ends are equal."""

    lane: str
    name: str
    begin: float
    end: float
    role: str = ""


@dataclass(frozen=True)
class Spans:
    """What happened when, a lane each."""

    title: str
    spans: Sequence[Span]
    note: str = ""
    kind = "spans"

    @property
    def table(self) -> Table:
        """The same as a table."""
        rows = [[one.lane, one.name, plain(one.begin), plain(one.end)] for one in self.spans]
        return Table(self.title, ("", "what", "from, s", "to, s"), rows)


@dataclass(frozen=True)
class Scale:
    """An axis of settings. ``marks``: its values as they are written, in order, equally far from each other; none where
    they are numbers of a range (``log``: in which equal ratios are equally far)."""

    name: str
    marks: Sequence[str] = ()
    log: bool = False


@dataclass(frozen=True)
class Trace:
    """A point that was tried.

    Attributes:
        name: of the point.
        at: its value on each scale, a mark or a number.
        value: its figure; None where it failed.
        role: of the arm that tried it.
        fate: what became of it, in a word or some.
        chosen: whether it was.
        early: whether it was stopped early, so that its figure is of a smaller budget.
    """

    name: str
    at: Sequence[str | float]
    value: float | None
    role: str = ""
    fate: str = ""
    chosen: bool = False
    early: bool = False


@dataclass(frozen=True)
class Coordinates:
    """A line for each point, across all scales to its figure ``y``; with one scale, a dot for each point."""

    title: str
    y: str
    scales: Sequence[Scale]
    traces: Sequence[Trace]
    note: str = ""
    kind = "coordinates"

    @property
    def table(self) -> Table:
        """The same as a table."""
        rows: list[list[Cell]] = [
            [
                one.name,
                one.role,
                *(at if isinstance(at, str) else plain(at) for at in one.at),
                plain(one.value),
                one.fate,
            ]
            for one in self.traces
        ]
        heads = ("point", "arm", *(scale.name for scale in self.scales), self.y, "what became of it")
        return Table(self.title, heads, rows).without_empty()


@dataclass(frozen=True)
class Slice(Coordinates):
    """A dot for each point over its one scale."""

    kind = "slice"


@dataclass(frozen=True)
class Drawing:
    """SVG that is trusted as it stands, and what it shows in words."""

    title: str
    svg: str
    words: str
    kind = "drawing"


@dataclass(frozen=True)
class Text:
    """A paragraph. ``code``: lines as they are, to be opened by the title."""

    words: Words
    code: bool = False
    title: str = "The mesh as it was given"
    kind = "text"


@dataclass(frozen=True)
class Sample:
    """A sample with what was answered.

    Attributes:
        name: its number in the data set.
        label: what is right.
        picture: an address that holds it; None of a text.
        text: its words, cut; None of a picture.
        answers: who, in which role, what, how sure, and whether that is right.
    """

    name: str
    label: str
    picture: str | None
    text: str | None
    answers: Sequence[tuple[str, str, str, Value | None, bool]]


@dataclass(frozen=True)
class Samples:
    """Samples side by side."""

    title: str
    samples: Sequence[Sample]
    note: str = ""
    kind = "samples"


Chart = Lines | Bars | Points | Matrix | Spans | Coordinates
Block = Text | Table | Chart | Drawing | Samples


@dataclass(frozen=True)
class Section:
    """A part of the page. ``id``: its anchor."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Judged:
    """The verdict on one: ``name``, in one word or some; ``tone``: good, bad or open; then sentences, each with what it
    answers."""

    name: str
    word: str
    tone: str
    said: Sequence[tuple[str, Words]]


@dataclass(frozen=True)
class Page:
    """Everything that a page says.

    Attributes:
        title: of the run or comparison.
        about: what it is, in a sentence: description, status, time.
        warnings: what a reader must know before reading on.
        short: the result in a sentence or two.
        general: what holds of all figures alike.
        judged: a verdict each, students first.
        sections: everything else.
        foot: by what the page was made.
    """

    title: str
    about: Sequence[Words]
    warnings: Sequence[Words]
    short: Words
    general: Sequence[Words]
    judged: Sequence[Judged]
    sections: Sequence[Section]
    foot: str = ""


def number(value: Any) -> float | None:
    """A finite number, None of anything else: figures in a folder may be NaN, missing, or no number at all."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def share(value: Any) -> Value | None:
    """A figure to four digits after the point."""
    return None if (known := number(value)) is None else Value(known, f"{known:.4f}")


def signed(value: Any) -> Value | None:
    """A difference, with its sign; a true minus, which a screen reader says."""
    return None if (known := number(value)) is None else Value(known, f"{known:+.4f}".replace("-", "−"))


def probability(value: Any) -> Value | None:
    """A p value in words that end a sentence: its digits, or that it is below what they can say."""
    known = number(value)
    return None if known is None else Value(known, "below 0.001" if known < 0.001 else f"{known:.3f}")


def given(value: Value | None) -> str | Value:
    """The number, or a dash where there is none."""
    return "–" if value is None else value


def count(value: Any) -> Value | None:
    """A whole number with its thousands set apart."""
    return None if (known := number(value)) is None else Value(known, f"{round(known):,}")


def plain(value: Any) -> Value | None:
    """A number in up to five digits."""
    if (known := number(value)) is None:
        return None
    if float(known).is_integer() and abs(known) < 1e15:
        return Value(known, f"{known:,.0f}")
    return Value(known, f"{known:.5g}")


def effect(value: Any) -> Value | None:
    """A difference in standard deviations."""
    return None if (known := number(value)) is None else Value(known, f"{known:+.2f}".replace("-", "−"))


def chance(value: Any) -> Value | None:
    """A p value; one that is very small as a bound."""
    if (known := number(value)) is None:
        return None
    return Value(known, "<.001" if known < 0.001 else f"{known:.3f}")


def span(seconds: Any) -> Value | None:
    """A time in the unit that suits it."""
    if (known := number(seconds)) is None:
        return None
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if known >= 2 * size:
            return Value(known, f"{known / size:.1f} {unit}")
    return Value(known, f"{known:.1f} s")


def thinned(series: Sequence[Series]) -> tuple[list[Series], str]:
    """Lines with at most `MOST_POINTS` points together, and what was left out in words.

    Of every stretch that is thinned the lowest and the highest point stay, so that no peak is lost.
    """
    each = max(LEAST_EACH, MOST_POINTS // max(1, len(series)))
    longest = max((len(one.points) for one in series), default=0)
    if longest <= each:
        return list(series), ""
    said = f"Of up to {longest:,} points a line, {each:,} are drawn: first, last, and the extremes of every stretch."
    return [Series(one.name, _few(one.points, each), one.role) for one in series], said


def _few(points: Sequence[tuple[float, float | None, float | None, float | None]], most: int) -> list[Any]:
    known = [point for point in points if point[1] is not None]
    if len(known) <= most:
        return known
    parts = max(1, (most - 2) // 2)
    kept = {0, len(known) - 1}
    for part in range(parts):
        stretch = range(part * len(known) // parts, (part + 1) * len(known) // parts)
        kept |= {min(stretch, key=lambda at: known[at][1] or 0.0), max(stretch, key=lambda at: known[at][1] or 0.0)}
    return [known[at] for at in sorted(kept)]
