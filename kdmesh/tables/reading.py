"""Rows of a file with named columns, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from kdmesh.errors import MeshError
from kdmesh.streams.host_memory import is_large
from kdmesh.tables.comma import read_csv
from kdmesh.tables.kinds import is_packed, kind_of
from kdmesh.tables.lines import read_jsonl
from kdmesh.tables.parquet import read_parquet
from kdmesh.tables.rows import Rows


def is_later(paths: Collection[str | None], lazy: bool | None) -> bool:
    """Whether tables in these files are read later: as ``lazy`` says, by default where they are large and not packed.

    In memory they take about four times as much.
    """
    if lazy is not None:
        return lazy
    files = [Path(path) for path in paths if path is not None]
    plain = all(not is_packed(path) and path.is_file() for path in files)
    if any(kind_of(path) == ".parquet" for path in files) and find_spec("datasets") is None:
        return False  # nobody makes Arrow of it
    return plain and is_large(4 * sum(path.stat().st_size for path in files))


def read_rows(
    path: Path, where: str, raw: Collection[str] = (), delimiter: str | None = None, encoding: str = ""
) -> Rows:
    """Return a file's rows; columns in ``raw`` as the file has them. MeshError for a file of no known kind.

    ``delimiter``: of CSV, by default a comma, in .tsv a tab; ``encoding``: of CSV and TSV, by default UTF-8.
    """
    match kind_of(path):
        case ".csv" | ".tsv" as kind:
            return read_csv(path, where, delimiter or ("\t" if kind == ".tsv" else ","), encoding)
        case ".jsonl":
            return read_jsonl(path, where, raw)
        case ".parquet" if not is_packed(path):
            return read_parquet(path, where, raw)
    raise MeshError(
        f"{path} has an unknown format",
        where=where,
        instead=".csv, .tsv or .jsonl (plain or .gz), .parquet, or a folder that `save_to_disk` made",
    )
