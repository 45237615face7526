"""Parquet files, with pyarrow."""

from __future__ import annotations

from pathlib import Path

from kdmesh.streams.table import Table
from kdmesh.tables.parquet import read_parquet
from kdmesh.tables.rows import Rows, table_of


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
) -> Table:
    """Return features ``[N, F]`` and labels of a Parquet file, and of the files of official splits.

    Rows of ``transfer_path`` have no labels, nor have those of ``path`` in which they are empty. With ``cells``
    features are prepared later, see :func:`kdmesh.tables.rows.table_of`.
    """

    def read(key: str, name: str | None) -> Rows | None:
        return None if name is None else read_parquet(Path(name), f"data.dataset.parquet.{key}")

    train, validation = read("path", path), read("validation_path", validation_path)
    assert train is not None
    test, pool = read("test_path", test_path), read("transfer_path", transfer_path)
    return table_of(train, test, label, features, classes, values, indicators, cells, validation=validation, pool=pool)
