"""Rows of Parquet files and of Hugging Face data sets; both libraries are optional."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

from kdmesh.errors import MeshError, nearest
from kdmesh.tables.files import most_cells, refuse_cells, refuse_large, regular
from kdmesh.tables.rows import Rows, cell, number_of

AT_ONCE = 4096  # rows
PARTS = ("train", "validation", "test")


def read_parquet(path: Path, where: str, raw: Collection[str] = ()) -> Rows:
    """Return a Parquet file's rows; errors number them from 0."""
    parquet = _library("pyarrow.parquet", "parquet", where)
    regular(path, where)
    try:
        with parquet.ParquetFile(path) as file:
            described, names = file.metadata, file.schema_arrow.names
            groups = [described.row_group(number) for number in range(described.num_row_groups)]
            refuse_large(path, sum(group.total_byte_size for group in groups), where)
            refuse_cells(path, described.num_rows * len(names), most_cells(), where)
            found, size = list[dict[str, Any]](), 0
            for batch in file.iter_batches(AT_ONCE):  # a value is packed once, however many rows repeat it
                size += batch.nbytes
                refuse_large(path, size, where)
                found += batch.to_pylist()
    except MeshError:
        raise
    except Exception as error:  # of pyarrow: ArrowInvalid, OSError, UnicodeDecodeError
        raise MeshError(
            f"{path}: {_first(error)}", where=where, instead="a complete Parquet file, text in UTF-8"
        ) from None
    return _rows(path, names, found, where, raw)


def open_parquet(path: Path, where: str) -> Any:
    """Return a Parquet file as a split of the `datasets` library, which makes Arrow of it in its cache, once."""
    library = _library("datasets", "datasets", where)
    regular(path, where, whole=False)
    said = not library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        return library.Dataset.from_parquet(str(path))
    except Exception as error:  # of datasets, pyarrow: whatever is in the file
        instead = "a complete Parquet file, text in UTF-8"
        raise MeshError(f"{path}: {_first(error)}", where=where, instead=instead) from None
    finally:
        if said:
            library.enable_progress_bars()


def read_folder(path: Path, where: str) -> dict[str, Any]:
    """Return the splits of a folder that `save_to_disk` made, by name; a data set without splits is `train`."""
    library = _library("datasets", "datasets", where)
    try:
        found = library.load_from_disk(str(path))
    except Exception as error:  # of datasets, pyarrow, json: whatever is in the folder
        instead = "a folder that `save_to_disk` made, or one file: .csv, .jsonl, .parquet"
        raise MeshError(f"{path}: {_first(error)}", where=where, instead=instead) from None
    return dict(found) if isinstance(found, dict) else {"train": found}


def read_hub(hub: str, name: str | None, revision: str | None, where: str) -> dict[str, Any]:
    """Return the splits of a data set of the Hugging Face hub, by name: downloaded, or from the library's cache."""
    library = _library("datasets", "datasets", where)
    try:
        return dict(library.load_dataset(hub, name, revision=revision))
    except Exception as error:  # no such id, no network, a broken copy: the library's own words say which
        what = f"{hub}: {type(error).__name__}: {_first(error)}"
        raise MeshError(what, where=where, instead="a data set's id, or `path` for a local copy") from None


def official(found: dict[str, Any], splits: dict[str, str] | None, source: str, where: str) -> dict[str, Any]:
    """Choose train, validation and test among a data set's splits: as ``splits`` maps them, else those so named."""
    chosen = splits or {part: part for part in PARTS if part in found}
    for name in chosen.values():
        if name not in found:
            raise MeshError(f"{source}: no split {name!r}", where=where, instead=nearest(name, found, "splits"))
    if "train" not in chosen:
        instead = f"splits: {{train: NAME}}, with one of {', '.join(found)}"
        raise MeshError(f"{source}: no split is named train", where=where, instead=instead)
    return {part: found[chosen[part]] for part in PARTS if part in chosen}


def rows_of(split: Any, source: str, where: str, raw: Collection[str] = ()) -> Rows:
    """Return one split's rows."""
    try:
        return _rows(source, split.column_names, split.to_list(), where, raw)
    except (UnicodeDecodeError, ValueError, OSError) as error:
        raise MeshError(f"{source}: {_first(error)}", where=where, instead="text in UTF-8") from None


def class_names(split: Any, column: str) -> list[str] | None:
    """The names of a label column's classes, in order, where the data set declares them."""
    names = getattr(split.features.get(column), "names", None)
    return list(names) if names else None


def named_classes(rows: Rows, split: Any) -> Rows:
    """The rows with the names of classes in place of their numbers, in columns of which the data set declares them."""
    for column in rows.columns:
        if (names := class_names(split, column)) is not None:
            for cells in rows.cells:
                number = cells[column]
                cells[column] = names[number] if isinstance(number, int) and 0 <= number < len(names) else ""
    return rows


def _rows(path: Path | str, columns: list[str], found: list[dict[str, Any]], where: str, raw: Collection[str]) -> Rows:
    if not found:
        raise MeshError(f"{path}: no rows", where=where, instead="at least one row")
    cells = [{key: value if key in raw else cell(value) for key, value in row.items()} for row in found]
    return Rows(path, where, columns, list(range(len(cells))), cells, number_of, noun="row")


def _library(module: str, extra: str, where: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        what = f"this needs {extra}: {error}"
        raise MeshError(what, where=where, instead=f'pip install "kdmesh[{extra}]"') from None


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
