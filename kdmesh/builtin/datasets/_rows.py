"""Tables from rows with named columns, whatever file they came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError, nearest
from kdmesh.streams.checks import labels
from kdmesh.streams.table import Table

LARGEST = torch.finfo(torch.float32).max


@dataclass
class Rows:
    """A file's cells: ``lines[i]`` is the line in the file where row i stands, ``cells[i][column]`` its raw value.

    ``where`` is the mesh's setting that named the file; ``number`` reads a cell, or returns None if it holds no number;
    ``noun`` says what ``lines`` count, in files that have no lines.
    """

    path: Path | str
    where: str
    columns: list[str]
    lines: list[int]
    cells: list[dict[str, Any]]
    number: Callable[[Any], float | None]
    noun: str = "line"

    def line(self, row: int) -> str:
        """Say on which line of the file a row stands."""
        return f"{self.noun} {self.lines[row]}"

    def at(self, row: int, column: str) -> str:
        """Say where a cell is."""
        return f"{self.path}, column {column!r}, {self.line(row)}"

    def is_numeric(self, column: str) -> bool:
        """Whether the column's first cell is a number: the rest must follow it."""
        return self.number(self.cells[0][column]) is not None

    def numbers(self, column: str) -> list[float]:
        """The column's values; a cell that is no finite number is a MeshError."""
        values = []
        for row, cells in enumerate(self.cells):
            value = self.number(cells[column])
            if value is None or not abs(value) <= LARGEST:
                raise MeshError(
                    f"{self.at(row, column)}: {cells[column]!r} is no finite number",
                    where=self.where,
                    instead="a number in every row, or `features` without this column",
                )
            values.append(value)
        return values

    def texts(self, column: str) -> list[str]:
        """The column's values as text."""
        return [str(cells[column]) for cells in self.cells]


def table_of(train: Rows, test: Rows | None, label: str, features: Sequence[str] | None, classes: int | None) -> Table:
    """Return a table of features ``[N, F]``, the rows of ``test`` as official test split.

    Features are the columns named, in that order, else every numeric one but the label. Columns that are neither
    numeric nor the label are kept as ``columns``. Labels are whole numbers from 0 where the first one is a number, else
    class names, numbered in sorted order. What ``test`` holds beyond the classes of ``train`` is refused.
    """
    parts = [train] if test is None else [train, test]
    has_columns(train, label, *(features or ()))
    if test is not None and set(test.columns) != set(train.columns):
        odd = sorted(set(test.columns) ^ set(train.columns))
        raise MeshError(f"{test.path}: columns differ from {train.path}: {', '.join(odd)}", where=test.where)
    numeric = [name for name in train.columns if name != label and train.is_numeric(name)]
    chosen = list(features) if features is not None else numeric
    if label in chosen or len(set(chosen)) < len(chosen) or not chosen:
        raise MeshError(
            f"{train.path}: features {chosen}",
            where=train.where,
            instead=f"numeric columns, each once, without {label!r}",
        )
    x = torch.cat([torch.tensor([part.numbers(name) for name in chosen], dtype=torch.float32).T for part in parts])
    y, count, names = labels_of(parts, label, classes)
    texts = [name for name in train.columns if name != label and name not in numeric and name not in chosen]
    return Table(
        x.contiguous(),
        y,
        count,
        official={} if test is None else {"test": torch.arange(len(train.cells), len(x))},
        columns={name: [text for part in parts for text in part.texts(name)] for name in texts},
        labels=names,
        source=str(train.path),
    )


def has_columns(rows: Rows, *names: str) -> None:
    """Refuse a file without one of these columns."""
    for name in names:
        if name not in rows.columns:
            instead = nearest(name, rows.columns, "columns")
            raise MeshError(f"{rows.path}: no column {name!r}", where=rows.where, instead=instead)


def labels_of(
    parts: list[Rows], label: str, classes: int | None, names: list[str] | None = None
) -> tuple[Tensor, int, list[str]]:
    """Labels ``[N]`` int64, the number of classes, and their names if they have names.

    Whole numbers from 0 where the first label is a number, else class names, numbered as in ``names``, by default as in
    the sorted names of the first part.
    """
    train, given = parts[0], names
    if names is not None:
        classes = len(names)
    if train.is_numeric(label):
        found = []
        for part in parts:
            values = torch.tensor(part.numbers(label), dtype=torch.float64)
            name = f"{part.path}, column {label!r}"
            y, classes = labels(values, len(values), classes, name, part.where, at=part.line)
            found.append(y)
        assert classes is not None
        return torch.cat(found), classes, names or []
    names = sorted(set(train.texts(label))) if names is None else names
    if classes is not None and len(names) > classes:
        raise MeshError(f"{train.path}: {len(names)} class names for {classes} classes", where=train.where)
    number = {name: i for i, name in enumerate(names)}
    known = "the given labels" if given is not None else train.path
    ids = []
    for part in parts:
        for row, name in enumerate(part.texts(label)):
            if name not in number or not name:
                raise MeshError(
                    f"{part.at(row, label)}: {name!r} is no class of {known}",
                    where=part.where,
                    instead=nearest(name, names, "classes"),
                )
            ids.append(number[name])
    return torch.tensor(ids), classes or len(names), names


def cell(value: Any) -> Any:
    """A value of JSON as a cell: numbers and text as they are, null as empty text, anything else as its JSON."""
    if value is None:
        return ""
    if isinstance(value, (list, dict, bool)):
        return json.dumps(value)
    return value if isinstance(value, (int, float)) else str(value)


def number_of(value: Any) -> float | None:
    """The number that a cell holds, if it holds one."""
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:  # a whole number beyond every float
        return float("inf")
