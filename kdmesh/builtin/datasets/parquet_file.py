"""Parquet files, with pyarrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.tables.parquet import read_parquet
from kdmesh.tables.splits import table_of_files
from kdmesh.tables.unread_files import rows_later

if TYPE_CHECKING:
    from kdmesh.streams.table import Table


def parquet_file(path: str, **settings: Any) -> Table:
    """Return features ``[N, F]`` and labels of a Parquet file, and of the files of official splits.

    ``settings``: of :func:`kdmesh.tables.splits.table_of_files`.
    """
    return table_of_files(
        "parquet", read_parquet, lambda file, where, keep: rows_later(file, where, keep=keep), path, **settings
    )
