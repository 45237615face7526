"""What a plugin adds to a run's page: sections of plain blocks, which are checked as they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

if TYPE_CHECKING:
    from pathlib import Path

Name = Annotated[str, Field(max_length=200)]
Prose = Annotated[str, Field(max_length=10_000)]
Number = StrictInt | StrictFloat
POINTS = 20_000
"""That one drawing has at most."""
Cell = Annotated[str, Field(max_length=2000)] | StrictInt | StrictFloat | None


class _Part(BaseModel):
    """What all blocks have: unknown fields are refused, and nothing changes once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(_Part):
    """A paragraph."""

    words: Prose


class Table(_Part):
    """Rows of texts and numbers, as many in each as there are ``heads``; the first column names its row.

    None, and a number that is not finite, is an empty cell. ``note`` stands below it.
    """

    title: Name
    heads: list[Name] = Field(min_length=1, max_length=50)
    rows: list[list[Cell]] = Field(max_length=1000)
    note: Prose = ""

    def model_post_init(self, context: Any) -> None:
        """ValueError where a row is no row of this table."""
        odd = next((row for row in self.rows if len(row) != len(self.heads)), None)
        if odd is not None:
            raise ValueError(f"a row of {len(odd)} cells in a table with {len(self.heads)} heads")


class Line(_Part):
    """A line of `Lines`: points ``(x, y)``; y is None where nothing was measured."""

    name: Name
    points: list[tuple[Number, Number | None]] = Field(max_length=POINTS)


class Lines(_Part):
    """Lines over one x, drawn with a table of their points below. ``x``, ``y``: what the axes measure, with units."""

    title: Name
    x: Name
    y: Name
    lines: list[Line] = Field(min_length=1, max_length=300)
    note: Prose = ""

    def model_post_init(self, context: Any) -> None:
        """ValueError where there are more points than a page should hold."""
        if (count := sum(len(line.points) for line in self.lines)) > POINTS:
            raise ValueError(f"{count:,} points in one drawing: at most {POINTS:,}")


class Bar(_Part):
    """A bar of `Bars`: its value, and the ends of its interval if there is one."""

    name: Name
    value: Number
    low: Number | None = None
    high: Number | None = None


class Bars(_Part):
    """Values by name, drawn as bars from 0. ``x``: what they measure, with its unit."""

    title: Name
    x: Name
    bars: list[Bar] = Field(min_length=1, max_length=300)
    note: Prose = ""


class Section(_Part):
    """A part of the page, with a title and at most 50 blocks in their order.

    Everywhere: a `Name` is a text of at most 200 characters, `Prose` one of at most 10,000, and a `Number` an int or a
    float of Python's own. Texts hold no markup: they are shown as they are.
    """

    title: Name
    blocks: list[Text | Table | Lines | Bars] = Field(min_length=1, max_length=50)


@dataclass(frozen=True)
class ReportedRun:
    """A run of which a page is made. Whatever a plugin changes in it is its own copy.

    Attributes:
        folder: the run's folder, to be read only.
        status: `running`, `paused`, `interrupted`, `incomplete`, `failed` or `finished`.
        mesh: the long form, as its manifest has it; numbers and texts in dicts and lists.
        seeds: the folder of each seed that was begun; with one seed, the run's own.
        summaries: the summary of each seed that was measured, as its ``summary.json`` has it.
    """

    folder: Path
    status: str
    mesh: dict[str, Any]
    seeds: dict[int, Path]
    summaries: dict[int, dict[str, Any]]
