"""Tables of the terminal on a page: the names of a row stand together, its numbers can be copied whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.report.grid import KEPT
from kdmesh.report.page.blocks import Cell, Table, Value

if TYPE_CHECKING:
    from kdmesh.report.grid import Column, Grid, Row


def table(grid: Grid, of: str = "") -> Table:
    """A grid as a table; ``of``: what follows its title."""
    names = [one for one in grid.columns if one.spare == KEPT]
    others = [one for one in grid.columns if one.spare != KEPT]
    rows: list[list[Cell]] = [
        [", ".join(str(row[one.key]) for one in names), *(_cell(one, row) for one in others)] for row in grid.rows
    ]
    return Table(grid.title + of, (", ".join(one.heading for one in names), *(one.heading for one in others)), rows)


def _cell(column: Column, row: Row) -> Cell:
    value = row.get(column.key)
    return Value(float(value), column.write(value)) if isinstance(value, int | float) else value
