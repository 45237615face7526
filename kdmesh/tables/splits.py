"""A table of the files of official splits, whatever kind they are of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdmesh.tables.reading import is_later
from kdmesh.tables.rows import table_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.streams.table import Table
    from kdmesh.tables.rows import Rows


def table_of_files(
    kind: str,
    now: Callable[[Path, str], Rows],
    later: Callable[[Path, str, list[str]], Rows],
    path: str,
    label: str | None = None,
    features: list[str] | None = None,
    test_path: str | None = None,
    classes: int | None = None,
    values: list[str] | None = None,
    indicators: list[str] | None = None,
    cells: bool = False,
    validation_path: str | None = None,
    transfer_path: str | None = None,
    lazy: bool | None = None,
) -> Table:
    """Return features ``[N, F]`` and labels of a file, and of those of official splits; see :func:`table_of`.

    ``now(file, where)`` reads rows into memory, ``later(file, where, keep)`` leaves them where they are but for the
    columns ``keep``; ``kind`` is what the data set is called. Rows of ``transfer_path`` have no labels, nor have those
    of ``path`` in which they are empty. With ``cells`` features are prepared later. ``lazy``: rows are gone through,
    and the numbers of all are in a file in place of memory.
    """
    given = {"path": path, "validation_path": validation_path, "test_path": test_path, "transfer_path": transfer_path}
    files = {key: Path(file) for key, file in given.items() if file is not None}
    unread = is_later(given.values(), False if cells and lazy is None else lazy)
    learned = values or indicators or [label or "label"]

    def read(key: str) -> Rows:
        where = f"data.dataset.{kind}.{key}"
        return later(files[key], where, learned) if unread else now(files[key], where)

    parts = {"train" if key == "path" else key.removesuffix("_path"): read(key) for key in files}
    return table_of(parts, label, features, classes, values, indicators, cells)
