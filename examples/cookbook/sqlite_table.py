"""A data set in SQLite: the columns of a table or a view.

No paper: SQLite is a file format and a library, which comes with Python.

A data set's factory returns a `Table`. What is wrong in the file is a MeshError that says where and what to do instead:
the user sees two lines, and no traceback. `path` is a FilePath, so it starts from the folder of the mesh's file.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pydantic import Field, FilePath

import kdmesh
from kdmesh.errors import MeshError
from kdmesh.offers import Config, DatasetOffer

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.streams.table import Table


class Settings(Config):
    """Settings of the data set."""

    path: FilePath = Field(description="the database, which is only read")
    table: str = Field(description="a table or view of it")
    label: str = Field(description="the column of the classes")
    order: str = Field(description="a column whose values differ and do not change: a sample is known by its place")
    features: list[str] | None = Field(None, description="columns of numbers; by default all others")


def read(path: Path, table: str, label: str, order: str, features: list[str] | None) -> Table:
    """Return features ``[N, F]`` and classes ``[N]``, numbered as their names are sorted."""
    import torch

    from kdmesh.streams.table import Table

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
            known = [row[1] for row in base.execute(f"PRAGMA table_info({_quoted(table)})")]
            features = features or [name for name in known if name not in (label, order)]
            _refuse(known, {"label": [label], "order": [order], "features": features}, table)
            columns = ", ".join(map(_quoted, (order, label, *features)))
            rows = base.execute(f"SELECT {columns} FROM {_quoted(table)} ORDER BY {_quoted(order)}").fetchall()
    except sqlite3.Error as error:
        raise MeshError(f"{path}: {error}", where="data.dataset.sqlite.path", instead="a SQLite database") from None
    if not rows or len({row[0] for row in rows}) < len(rows):
        what = f"{path}: {table!r} has no rows, or some of the same {order!r}"
        raise MeshError(what, where="data.dataset.sqlite.order", instead="a column whose values differ")
    for row in rows:
        if row[1] is None or not all(isinstance(value, int | float) for value in row[2:]):
            what = f"{path}: the row with {order} {row[0]!r} has {row[1:]!r}"
            raise MeshError(what, where="data.dataset.sqlite", instead="a class, and numbers as features")
    names = sorted({str(row[1]) for row in rows})
    numbers = {name: number for number, name in enumerate(names)}
    x = torch.tensor([row[2:] for row in rows], dtype=torch.float32)
    y = torch.tensor([numbers[str(row[1])] for row in rows])
    return Table(x, y, classes=len(names), labels=names, features=features, source=f"{path.name}, {table}")


def _quoted(name: str) -> str:
    """A name as SQL has it, whatever it is."""
    return '"' + name.replace('"', '""') + '"'


def _refuse(known: list[str], asked: dict[str, list[str]], table: str) -> None:
    """Say which column, or that the table, is not there."""
    for setting, names in asked.items():
        for name in names:
            if name not in known:
                what = f"{table!r} has no column {name!r}" if known else f"there is no table {table!r}"
                raise MeshError(what, where=f"data.dataset.sqlite.{setting}", instead=f"one of: {', '.join(known)}")


DATASET = DatasetOffer("sqlite", "sqlite_table:read", Settings, "columns of a table in SQLite")


@kdmesh.hookimpl
def kdmesh_datasets() -> list[DatasetOffer]:
    """Offer the data set."""
    return [DATASET]


def write(path: Path) -> None:
    """Make the database of the mesh: scikit-learn's 178 wines, each feature from 0 to 1."""
    from sklearn.datasets import load_wine

    wines: Any = load_wine()
    scaled = (wines.data - wines.data.min(0)) / (wines.data.max(0) - wines.data.min(0))
    columns = ", ".join(_quoted(name) for name in ("id", *wines.feature_names, "grower"))
    rows = [
        (number, *row.tolist(), str(wines.target_names[grower]))
        for number, (row, grower) in enumerate(zip(scaled, wines.target, strict=True))
    ]
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(f"CREATE TABLE wines ({columns})")
        base.executemany(f"INSERT INTO wines VALUES ({', '.join('?' * len(rows[0]))})", rows)


if __name__ == "__main__":
    from pathlib import Path

    write(Path(__file__).with_name("wine.sqlite"))
