"""Tables whose rows stay in their file: of Arrow and Parquet, JSON lines and CSV.

A file of lines is gone through once, for where each row begins and ends, and on which line: 24 bytes of memory a row.
"""

from __future__ import annotations

import csv
import io
import mmap
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.tables.comma import LONGEST, cells_of_row, columns_of
from kdmesh.tables.comma import number_of as comma_number
from kdmesh.tables.files import regular
from kdmesh.tables.kinds import is_packed, kind_of
from kdmesh.tables.lines import decoded
from kdmesh.tables.parquet import open_parquet
from kdmesh.tables.rows import Rows, cell, number_of
from kdmesh.tables.unchanged import Unchanged
from kdmesh.tables.unread_rows import AT_ONCE, Cells, Known, UnreadRows


def rows_later(
    path: Path,
    where: str,
    raw: Collection[str] = (),
    keep: Collection[str] = (),
    delimiter: str | None = None,
    encoding: str = "",
) -> Rows:
    """A file's rows, unread, as :func:`kdmesh.tables.reading.read_rows` gives them; columns ``keep`` are kept."""
    kind = kind_of(path)
    if kind in (".csv", ".tsv"):
        return comma_rows(path, where, keep, delimiter or ("\t" if kind == ".tsv" else ","), encoding)
    if kind == ".jsonl":
        return json_rows(path, where, raw, keep)
    if kind == ".parquet":
        return arrow_rows(open_parquet(path, where), path, where, raw, keep)
    instead = ".csv, .tsv, .jsonl or .parquet, or a folder that `save_to_disk` made"
    raise MeshError(f"{path} has an unknown format", where=where, instead=instead)


def _plain(path: Path, where: str) -> None:
    if is_packed(path):
        what = f"{path} is packed, and is read whole"
        raise MeshError(what, where=where, instead="the file unpacked, `gunzip -k`, or lazy: false")
    regular(path, where, whole=False)
    if not path.stat().st_size:
        raise MeshError(f"{path} is empty", where=where, instead="a file with data")


class ArrowRows(UnreadRows):
    """Rows of a split of the `datasets` library, whose Arrow files are mapped."""

    def __init__(self, split: Any, raw: Collection[str], keep: Collection[str], where: str) -> None:
        self._split, self._raw = split.with_format("arrow"), frozenset(raw)
        self._unchanged = Unchanged([one["filename"] for one in split.cache_files], where)
        super().__init__(len(split))
        known = [name for name in keep if name in split.column_names]
        found: Known = {name: [] for name in known}
        for start in range(0, len(split), AT_ONCE) if known else ():
            part = split.select_columns(known).with_format("arrow")[start : start + AT_ONCE]
            for name in known:
                found[name] += [one if name in self._raw else cell(one) for one in part[name].to_pylist()]
        self._kept = {name: _shared(values) for name, values in found.items()}

    def read(self, at: Sequence[int]) -> list[Cells]:
        """Rows of the tables, as Python has them."""
        self._unchanged.check()
        rows = self._split[at if isinstance(at, range) else list(at)].to_pylist() if len(at) else []
        return [{key: value if key in self._raw else cell(value) for key, value in row.items()} for row in rows]


class LineRows(UnreadRows):
    """Rows of a file of text. ``starts``, ``ends``: where each begins and ends, ``[N]`` int64.

    ``decode``: a row's cells, of its bytes and its number; ``unchanged``: the file as it was at first.
    """

    def __init__(
        self,
        path: Path,
        starts: Tensor,
        ends: Tensor,
        decode: Callable[[bytes, int], Cells],
        kept: Known,
        unchanged: Unchanged,
    ) -> None:
        super().__init__(len(starts), kept)
        self._path, self._starts, self._ends, self._decode = path, starts, ends, decode
        self._unchanged = unchanged

    @cached_property
    def _bytes(self) -> mmap.mmap:
        with self._path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self, at: Sequence[int]) -> list[Cells]:
        """Cut rows out of the file, and decode them."""
        self._unchanged.check()
        rows = torch.as_tensor(at, dtype=torch.int64)
        places = zip(at, self._starts[rows].tolist(), self._ends[rows].tolist(), strict=True)
        return [self._decode(self._bytes[start:end], row) for row, start, end in places]

    def __getstate__(self) -> dict[str, Any]:
        """Without the file: another process maps it for itself."""
        return {name: value for name, value in vars(self).items() if name != "_bytes"}


def arrow_rows(split: Any, source: Path | str, where: str, raw: Collection[str], keep: Collection[str]) -> Rows:
    """The rows of a split, unread. Columns ``keep`` are kept in memory."""
    if not len(split):
        raise MeshError(f"{source}: no rows", where=where, instead="at least one row")
    cells = ArrowRows(split, raw, keep, where)
    return Rows(source, where, list(split.column_names), range(len(split)), cells, number_of, noun="row")


def json_rows(path: Path, where: str, raw: Collection[str] = (), keep: Collection[str] = ()) -> Rows:
    """The rows of JSON lines, unread; each is looked at once, as :func:`kdmesh.tables.lines.read_jsonl` does."""
    _plain(path, where)
    unchanged = Unchanged([path], where)
    starts, ends, lines = array("q"), array("q"), array("q")
    columns: list[str] = []
    kept: Known = {}
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            start, end = end, end + len(line)
            text = _text(line, path, where, start, "")
            if not text.strip():
                continue
            row = decoded(text.rstrip("\n"), path, number, where, columns)
            if not columns:
                columns = list(row)
                kept = {name: [] for name in keep if name in columns}
            starts.append(start)
            ends.append(end)
            lines.append(number)
            for name, values in kept.items():
                values.append(row[name] if name in raw else cell(row[name]))
    if not lines:
        raise MeshError(f"{path}: only blank lines", where=where, instead="at least one row")
    decode = partial(_json, path=path, where=where, raw=frozenset(raw), lines=_ints(lines))
    known = {name: _shared(own) for name, own in kept.items()}
    made = LineRows(path, _ints(starts), _ints(ends), decode, known, unchanged)
    return Rows(path, where, columns, lines, made, number_of)


def _json(line: bytes, row: int, path: Path, where: str, raw: frozenset[str], lines: Tensor) -> Cells:
    text = _text(line, path, where, 0, "").rstrip("\n")
    cells = decoded(text, path, int(lines[row]), where, ())
    return {key: value if key in raw else cell(value) for key, value in cells.items()}


def comma_rows(path: Path, where: str, keep: Collection[str], delimiter: str, encoding: str) -> Rows:
    """The rows of CSV, unread; each is looked at once, as :func:`kdmesh.tables.comma.read_csv` does."""
    _plain(path, where)
    if encoding and "\n".encode(encoding) != b"\n":
        what = f"{path} is in {encoding}, of which a line does not end with the byte of one"
        raise MeshError(what, where=where, instead="text in UTF-8, or lazy: false")
    csv.field_size_limit(LONGEST)
    unchanged = Unchanged([path], where)
    starts, ends, lines = array("q"), array("q"), array("q")
    kept: Known = {}
    done = 0

    def given() -> Iterator[str]:
        nonlocal done
        for line in file:
            text = _text(line, path, where, done, encoding)
            done += len(line)
            yield text

    with path.open("rb") as file:
        reader = csv.reader(given(), strict=True, delimiter=delimiter)
        try:
            columns = columns_of(next(reader, []), path, where)
            kept = {name: [] for name in keep if name in columns}
            before, end = done, reader.line_num
            for row in reader:
                start, before = before, done
                line, end = end + 1, reader.line_num
                if not row:
                    continue
                cells = cells_of_row(row, columns, path, line, where)
                starts.append(start)
                ends.append(done)
                lines.append(line)
                for name, values in kept.items():
                    values.append(cells[name])
        except csv.Error as error:
            what = f"{path}, line {reader.line_num}: {error}"
            raise MeshError(what, where=where, instead="well-formed CSV, whose lines end with a line feed") from None
    if not lines:
        raise MeshError(f"{path}: a header row and no data", where=where, instead="at least one row")
    decode = partial(_comma, columns=columns, delimiter=delimiter, encoding=encoding)
    known = {name: _shared(own) for name, own in kept.items()}
    made = LineRows(path, _ints(starts), _ints(ends), decode, known, unchanged)
    return Rows(path, where, columns, lines, made, comma_number)


def _comma(line: bytes, row: int, columns: list[str], delimiter: str, encoding: str) -> Cells:
    text = io.StringIO(line.decode(encoding or "utf-8"), newline="")
    found = next(csv.reader(text, strict=True, delimiter=delimiter))
    return dict(zip(columns, found, strict=True))


def _text(line: bytes, path: Path, where: str, start: int, encoding: str) -> str:
    """A line in words; the first one without a byte-order mark."""
    try:
        return line.decode(encoding or ("utf-8-sig" if not start else "utf-8"))
    except UnicodeDecodeError as error:
        said = encoding or "UTF-8"
        what = f"{path}: byte {start + error.start} is not {said}"
        raise MeshError(what, where=where, instead=f"text in {said}") from None


def _ints(found: array[int]) -> Tensor:
    return torch.from_numpy(np.frombuffer(found, dtype=np.int64).copy())


def _shared(values: list[Any]) -> list[Any]:
    """The same, of which equal texts are one object: a column of classes has few."""
    known: dict[str, str] = {}
    return [known.setdefault(one, one) if isinstance(one, str) else one for one in values]
