"""JSON lines: one object per line, all with the same keys."""

from __future__ import annotations

from pathlib import Path

from kdmesh.streams.table import Table
from kdmesh.tables.lines import read_jsonl
from kdmesh.tables.rows import table_of


def jsonl_file(
    path: str,
    label: str | None = None,
    features: list[str] | None = None,
    test_path: str | None = None,
    classes: int | None = None,
    values: list[str] | None = None,
    indicators: list[str] | None = None,
    cells: bool = False,
) -> Table:
    """Return features ``[N, F]`` and labels of a JSON-lines file, plain or .gz; ``test_path`` is the official test.

    ``cells``: features are prepared later, see :func:`kdmesh.tables.rows.table_of`.
    """
    test = None if test_path is None else read_jsonl(Path(test_path), "data.dataset.jsonl.test_path")
    train = read_jsonl(Path(path), "data.dataset.jsonl.path")
    return table_of(train, test, label, features, classes, values, indicators, cells)
