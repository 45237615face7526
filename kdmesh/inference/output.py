"""Predictions as a table: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.files import write

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = (".csv", ".jsonl", ".parquet")


def refuse(path: Path, source: Path) -> None:
    """Raise MeshError for a file of no kind that can be written, before anything is computed.

    ``source``: the file of samples, which is not to be lost.
    """
    if path.suffix not in KINDS:
        found = f"found {path.suffix!r}" if path.suffix else f"found {str(path)!r}, without a suffix"
        raise MeshError(found, where="--out", instead=f"FILE{', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if path.is_dir() or not path.resolve().parent.is_dir():
        what = f"{path} is a folder" if path.is_dir() else f"no folder {path.resolve().parent}"
        raise MeshError(what, where="--out", instead="a file in a folder that is there")
    if path.exists() and not path.is_file():
        raise MeshError(f"{path} is there, and no file", where="--out", instead="another name")
    if path.exists() and source.exists() and path.samefile(source):
        raise MeshError(f"{path} is the file of samples itself", where="--out", instead="another name")
    if path.suffix == ".parquet":
        _parquet()


def text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A list as JSON, as files of texts have it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def save(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows, which all have the same cells, in the form that the file's name says; whole, or not at all."""
    match path.suffix:
        case ".csv":
            write(path, text(rows))
        case ".jsonl":
            write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        case _:
            import pyarrow

            from kdmesh.files import aside

            with aside(path) as part:
                _parquet().write_table(pyarrow.Table.from_pylist(list(rows)), part)


def _parquet() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        what, instead = "Parquet needs pyarrow", "pip install 'kdmesh[parquet]', or --out FILE.csv"
        raise MeshError(what, where="--out", instead=instead) from None
    return parquet
