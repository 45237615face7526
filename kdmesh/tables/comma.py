"""Rows of CSV files with a header row, as RFC 4180 describes them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from kdmesh.errors import MeshError
from kdmesh.tables.files import most_cells, read_text, refuse_cells
from kdmesh.tables.rows import Rows

LONGEST = 2**31 - 1  # characters of a cell: as many as every platform's library takes


def read_csv(path: Path, where: str, delimiter: str = ",", encoding: str = "") -> Rows:
    """Return a file's rows; a MeshError names the line that is no well-formed CSV.

    ``delimiter``: the character between cells; ``encoding``: of its text, by default UTF-8.
    """
    csv.field_size_limit(LONGEST)
    text = io.StringIO(read_text(path, where, encoding), newline="")
    reader = csv.reader(text, strict=True, delimiter=delimiter)
    lines: list[int] = []
    most = most_cells()
    cells: list[dict[str, str]] = []
    try:
        columns = columns_of(next(reader, []), path, where)
        end = reader.line_num
        for row in reader:
            line, end = end + 1, reader.line_num  # a quoted cell may go over several lines
            if not row:
                continue  # a blank line
            lines.append(line)
            refuse_cells(path, len(lines) * len(columns), most, where)
            cells.append(cells_of_row(row, columns, path, line, where))
    except csv.Error as error:
        raise MeshError(f"{path}, line {reader.line_num}: {error}", where=where, instead="well-formed CSV") from None
    if not cells:
        raise MeshError(f"{path}: a header row and no data", where=where, instead="at least one row")
    return Rows(path, where, columns, lines, cells, number_of)


def columns_of(header: list[str], path: Path, where: str) -> list[str]:
    """The names in a header row; MeshError where one is missing or stands twice."""
    if not header or len(set(header)) < len(header):
        raise MeshError(f"{path}: header row {header}", where=where, instead="a name for each column, each once")
    return header


def cells_of_row(row: list[str], columns: list[str], path: Path, line: int, where: str) -> dict[str, str]:
    """A row's cells by column; MeshError, which names the line, where there is not one for each."""
    if len(row) != len(columns):
        what = f"{path}, line {line}: {len(row)} cells for {len(columns)} columns"
        raise MeshError(what, where=where, instead="one cell per column")
    return dict(zip(columns, row, strict=True))


def number_of(cell: str) -> float | None:
    """The number that a cell holds, if it holds one."""
    try:
        return None if "_" in cell else float(cell)  # Python's own `1_0` is not a number of a table
    except ValueError:
        return None
