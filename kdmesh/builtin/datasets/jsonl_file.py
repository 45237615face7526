"""JSON lines: one object per line, all with the same keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.tables.lines import read_jsonl
from kdmesh.tables.splits import table_of_files
from kdmesh.tables.unread_files import json_rows

if TYPE_CHECKING:
    from kdmesh.streams.table import Table


def jsonl_file(path: str, **settings: Any) -> Table:
    """Return features ``[N, F]`` and labels of a JSON-lines file, plain or .gz, and of the files of official splits.

    ``settings``: of :func:`kdmesh.tables.splits.table_of_files`.
    """
    return table_of_files(
        "jsonl", read_jsonl, lambda file, where, keep: json_rows(file, where, keep=keep), path, **settings
    )
