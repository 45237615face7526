"""Tables of any width: a column that does not fit moves below, into a part of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from rich.cells import cell_len

from kdmesh.report import layout

Row = dict[str, Any]
FOLDED = 16  # cells that a column of text keeps before other columns make room
KEPT = -1  # for `spare`: names the row, in every part of its table


@dataclass(frozen=True)
class Column:
    """A heading, how a row's value is written, and how soon it moves below where space is short: the largest first."""

    heading: str
    key: str
    write: Callable[[Any], str] = str
    spare: int = 0

    @property
    def text(self) -> bool:
        """Whether it is aligned to the left, and may fold."""
        return self.write is str


@dataclass(frozen=True)
class Grid:
    """A table without the columns that have no value; what does not fit stands below, in parts of its own."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""

    def lines(self, width: int, rule: str = "─") -> list[str]:
        """The table in lines of at most ``width`` cells; none if there are no rows."""
        columns = [column for column in self.columns if any(row.get(column.key) is not None for row in self.rows)]
        if not columns:
            return []
        parts: list[str] = []
        while columns:
            fit = self._fitting(columns, width)
            parts += [*([""] if parts else []), *self._part(fit, width, rule)]
            left = [column for column in columns if column not in fit]
            columns = [column for column in columns if column.spare == KEPT or column in left] if left else []
        return [*layout.wrap(self.title, width), *parts, *(layout.wrap(self.caption, width) if self.caption else [])]

    def _fitting(self, columns: Sequence[Column], width: int) -> list[Column]:
        """As many columns as fit, and at least one beside those that name the row."""
        fit = list(columns)
        while len(movable := [column for column in fit if column.spare != KEPT]) > 1:
            if sum(map(self._least, fit)) + layout.GAP * (len(fit) - 1) <= width:
                break
            fit.remove(max(reversed(movable), key=lambda column: column.spare))
        return fit

    def _least(self, column: Column) -> int:
        """The cells that a column needs."""
        cells = [
            column.heading,
            *(column.write(row[column.key]) for row in self.rows if row.get(column.key) is not None),
        ]
        widest = max(cell_len(line) for cell in cells for line in cell.split("\n"))
        return min(widest, FOLDED) if column.text else widest

    def _part(self, columns: Sequence[Column], width: int, rule: str) -> list[str]:
        """Lines of some columns; a row that has nothing in them is left out."""
        own = [column for column in columns if column.spare != KEPT] or columns
        rows = [[column.heading for column in columns]]
        for row in self.rows:
            if any(row.get(column.key) is not None for column in own):
                values = [(column, row.get(column.key)) for column in columns]
                rows.append(["" if value is None else column.write(value) for column, value in values])
        right = {number for number, column in enumerate(columns) if not column.text}
        return layout.table(rows, width, right, 1, rule)


def figure(value: float) -> str:
    """A figure to four digits after the point."""
    return f"{value:.4f}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"{value:+.4f}"


def interval(ends: tuple[float, float]) -> str:
    """Where a difference may lie."""
    return f"{signed(ends[0])} to {signed(ends[1])}"


def show(file: IO[str], *tables: Grid, width: int | None = None) -> None:
    """Print tables, as wide as the terminal or as is told, an empty line after each."""
    rule = "─" if (getattr(file, "encoding", None) or "utf-8").lower().startswith("utf") else "-"
    for table in tables:
        lines = table.lines(width or layout.terminal_width(file), rule)
        file.writelines(f"{line}\n" for line in [*lines, *([""] if lines and table is not tables[-1] else [])])
