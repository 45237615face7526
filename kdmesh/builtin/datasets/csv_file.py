"""CSV files with a header row, as RFC 4180 describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.tables.comma import read_csv
from kdmesh.tables.kinds import kind_of
from kdmesh.tables.splits import table_of_files
from kdmesh.tables.unread_files import comma_rows

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.streams.table import Table
    from kdmesh.tables.rows import Rows


def csv_file(path: str, delimiter: str | None = None, encoding: str | None = None, **settings: Any) -> Table:
    """Return features ``[N, F]`` and labels of a CSV file, plain or .gz, and of the files of official splits.

    ``settings``: of :func:`kdmesh.tables.splits.table_of_files`.
    """

    def between(file: Path) -> str:
        return delimiter or ("\t" if kind_of(file) == ".tsv" else ",")

    def now(file: Path, where: str) -> Rows:
        return read_csv(file, where, between(file), encoding or "")

    def later(file: Path, where: str, keep: list[str]) -> Rows:
        return comma_rows(file, where, keep, between(file), encoding or "")

    found = table_of_files("csv", now, later, path, **settings)
    found.reads |= {name: told for name, told in {"delimiter": delimiter, "encoding": encoding}.items() if told}
    return found
