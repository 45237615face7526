"""CSV files with a header row, as RFC 4180 describes them."""

from __future__ import annotations

from pathlib import Path

from kdmesh.streams.table import Table
from kdmesh.tables.comma import read_csv
from kdmesh.tables.rows import table_of


def csv_file(
    path: str,
    label: str | None = None,
    features: list[str] | None = None,
    test_path: str | None = None,
    classes: int | None = None,
    values: list[str] | None = None,
    indicators: list[str] | None = None,
    cells: bool = False,
) -> Table:
    """Return features ``[N, F]`` and labels of a CSV file, plain or .gz; ``test_path`` is the official test split.

    ``cells``: features are prepared later, see :func:`kdmesh.tables.rows.table_of`.
    """
    test = None if test_path is None else read_csv(Path(test_path), "data.dataset.csv.test_path")
    train = read_csv(Path(path), "data.dataset.csv.path")
    return table_of(train, test, label, features, classes, values, indicators, cells)
