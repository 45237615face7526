"""Parquet files, with pyarrow."""

from __future__ import annotations

from pathlib import Path

from kdmesh.streams.table import Table
from kdmesh.tables.parquet import read_parquet
from kdmesh.tables.reading import is_later
from kdmesh.tables.rows import Rows, table_of
from kdmesh.tables.unread_files import rows_later


def parquet_file(
    path: str,
    label: str | None = None,
    features: list[str] | None = None,
    test_path: str | None = None,
    classes: int | None = None,
    values: list[str] | None = None,
    indicators: list[str] | None = None,
    validation_path: str | None = None,
    transfer_path: str | None = None,
    cells: bool = False,
    lazy: bool | None = None,
) -> Table:
    """Return features ``[N, F]`` and labels of a Parquet file, and of the files of official splits.

    Rows of ``transfer_path`` have no labels, nor have those of ``path`` in which they are empty. With ``cells``
    features are prepared later, see :func:`kdmesh.tables.rows.table_of`. ``lazy``: rows are gone through, and the
    numbers of all are in a file in place of memory.
    """
    later = is_later([path, validation_path, test_path, transfer_path], False if cells and lazy is None else lazy)
    learned = values or indicators or [label or "label"]

    def read(key: str, name: str | None) -> Rows | None:
        if name is None:
            return None
        where = f"data.dataset.parquet.{key}"
        return rows_later(Path(name), where, keep=learned) if later else read_parquet(Path(name), where)

    train, validation = read("path", path), read("validation_path", validation_path)
    assert train is not None
    test, pool = read("test_path", test_path), read("transfer_path", transfer_path)
    return table_of(train, test, label, features, classes, values, indicators, cells, validation=validation, pool=pool)
