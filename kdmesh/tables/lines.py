"""Rows of JSON lines: one object per line, all with the same keys."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from kdmesh.errors import MeshError
from kdmesh.tables.files import most_cells, read_text, refuse_cells
from kdmesh.tables.rows import Rows, cell, number_of


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a key stands in it twice: which value is meant, nobody can say."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in an object")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_once)


def read_jsonl(path: Path, where: str, raw: Collection[str] = ()) -> Rows:
    """Return a file's rows, columns in ``raw`` as JSON has them; a MeshError names the line that is no such object."""
    lines: list[int] = []
    most = most_cells()
    cells: list[dict[str, Any]] = []
    for number, line in enumerate(read_text(path, where).split("\n"), 1):
        if not line.strip():
            continue
        row = decoded(line, path, number, where, cells[0] if cells else ())
        lines.append(number)
        refuse_cells(path, len(lines) * len(row), most, where)
        cells.append({key: value if key in raw else cell(value) for key, value in row.items()})
    if not cells:
        raise MeshError(f"{path}: only blank lines", where=where, instead="at least one row")
    return Rows(path, where, list(cells[0]), lines, cells, number_of)


def decoded(line: str, path: Path, number: int, where: str, columns: Collection[str]) -> dict[str, Any]:
    """The object on a line; MeshError, which names the line, where there is none, or none with these ``columns``."""
    try:
        row = DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise MeshError(f"{path}, line {number}: {error}", where=where, instead="one JSON object per line") from None
    if not isinstance(row, dict) or not row:
        raise MeshError(f"{path}, line {number}: {line[:40]!r}", where=where, instead="a JSON object with keys")
    if columns and set(row) != set(columns):
        odd = ", ".join(sorted(set(row) ^ set(columns)))
        what = f"{path}, line {number}: keys differ from the first row: {odd}"
        raise MeshError(what, where=where, instead="the same keys in every row")
    return row
