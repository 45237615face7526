"""What an audit of the run found, if one was made: `kdmesh audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.run_files import AUDITED
from kdmesh.files import read_json
from kdmesh.report.audited import lines_of, tables_of
from kdmesh.report.grid import KEPT
from kdmesh.report.page.blocks import Block, Cell, Section, Table, Text, Value

if TYPE_CHECKING:
    from kdmesh.report.grid import Column, Grid, Row
    from kdmesh.report.page.known import Known


def section(known: Known) -> Section | None:
    """Of the run, or of each of its seeds that was audited."""
    blocks: list[Block] = []
    for seed, part in known.run.runs.items():
        found = read_json(part.path / AUDITED)
        if found is None:
            continue
        of = f", seed {seed}" if len(known.run.runs) > 1 else ""
        blocks += [_table(one, of) for one in tables_of(found)]
        blocks.append(Text(lines_of(found)))
    return Section("audit", "Audit: what agents tell of what they learned", blocks) if blocks else None


def _table(grid: Grid, of: str) -> Table:
    names = [one for one in grid.columns if one.spare == KEPT]
    others = [one for one in grid.columns if one.spare != KEPT]
    rows: list[list[Cell]] = [
        [", ".join(str(row[one.key]) for one in names), *(_cell(one, row) for one in others)] for row in grid.rows
    ]
    return Table(grid.title + of, (", ".join(one.heading for one in names), *(one.heading for one in others)), rows)


def _cell(column: Column, row: Row) -> Cell:
    value = row.get(column.key)
    return Value(float(value), column.write(value)) if isinstance(value, int | float) else value
