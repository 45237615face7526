"""Tables from rows with named columns, whatever file they came from."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError, may_quote, nearest, quoted
from kdmesh.streams.cells import Cells
from kdmesh.streams.checks import labels
from kdmesh.streams.in_file import InFile, UnreadNumbers
from kdmesh.streams.table import NOT_ASKED, Table, no_labels
from kdmesh.streams.unread import Unread
from kdmesh.tables.unread_rows import AT_ONCE, UnreadColumn, UnreadRows, column_of

LARGEST = torch.finfo(torch.float32).max


@dataclass
class Rows:
    """A file's cells: ``lines[i]`` is the line in the file where row i stands, ``cells[i][column]`` its raw value.

    ``where`` is the mesh's setting that named the file; ``number`` reads a cell, or returns None if it holds no number;
    ``noun`` says what ``lines`` count, in files that have no lines. ``cells`` are in memory, or read when they are
    asked for (:class:`kdmesh.tables.unread_rows.UnreadRows`).
    """

    path: Path | str
    where: str
    columns: list[str]
    lines: Sequence[int]
    cells: Sequence[dict[str, Any]]
    number: Callable[[Any], float | None]
    noun: str = "line"

    def line(self, row: int) -> str:
        """Say on which line of the file a row stands."""
        return f"{self.noun} {self.lines[row]}"

    def at(self, row: int, column: str) -> str:
        """Say where a cell is."""
        return f"{self.path}, column {column!r}, {self.line(row)}"

    def is_numeric(self, column: str) -> bool:
        """Whether at least half of the cells are numbers: then all must be."""
        return 2 * self._numbers(column) >= len(self.cells)

    def numeric(self, columns: Sequence[str]) -> list[str]:
        """Those of the columns that are numeric, found in one reading of all cells."""
        counts = dict.fromkeys(columns, 0)
        for cells in self.cells:
            for name in columns:
                counts[name] += self.number(cells[name]) is not None
        return [name for name, count in counts.items() if 2 * count >= len(self.cells)]

    def why_not(self, column: str) -> str:
        """Why a column is not taken for numbers, in a few words."""
        values = list(self.column(column))
        filled = [value for value in values if value != ""]
        if not filled:
            return "every cell is empty"
        odd = next((value for value in filled if self.number(value) is None), filled[0])
        if {str(value).lower() for value in filled} <= {"true", "false"}:
            return "true and false, no numbers"
        said = f"{quoted(odd if len(str(odd)) <= 20 else str(odd)[:17] + '...')} is not a number"
        if isinstance(odd, str) and self.number(odd.replace(",", ".")) is not None:
            said += " (a decimal point is needed)"
        count = self._numbers(column)
        return f"{said}, as are {len(values) - count} of {len(values)} cells" if count else said

    def numbers(
        self,
        column: str,
        instead: str = "a number in every row, `features` without this column, or `data.prepare` for gaps and words",
    ) -> list[float]:
        """The column's values; a cell that is not a finite number is a MeshError."""
        values = []
        for row, raw in enumerate(self.column(column)):
            value = self.number(raw)
            if value is None or not abs(value) <= LARGEST:
                odd = len(self.cells) - self._numbers(column)
                raise MeshError(
                    f"{self.at(row, column)}: {shown(raw)} is not a finite number"
                    + (f"; {odd} of the {len(self.cells)} cells are none" if odd > 1 else ""),
                    where=self.where,
                    instead=instead,
                )
            values.append(value)
        return values

    def _numbers(self, column: str) -> int:
        return sum(self.number(value) is not None for value in self.column(column))

    def column(self, name: str) -> Iterable[Any]:
        """A column's values, in order."""
        return column_of(self.cells, name)

    def texts(self, column: str) -> list[str]:
        """The column's values as text."""
        return [str(value) for value in self.column(column)]


def table_of(
    parts: Mapping[str, Rows],
    label: str | None,
    features: Sequence[str] | None,
    classes: int | None,
    values: list[str] | None = None,
    indicators: list[str] | None = None,
    cells: bool = False,
) -> Table:
    """Return a table of features ``[N, F]`` of ``parts``: `train`, and official splits by their names.

    Rows without labels, those of `transfer` and of `train` in which they are empty, are the official split `transfer`.

    Features are the columns named, in that order, else every numeric one but the label: those in which at least half
    of the cells are numbers, and then all must be. Columns that are neither numeric nor the label are kept as
    ``columns``, and the table says what was left out and why. Labels are whole numbers from 0 where at least half are
    numbers, else class names, numbered in sorted order; or, where they are named, columns of ``values``, or of
    ``indicators`` (1 and 0, or true and false). What `test` holds beyond the classes of `train` is refused. With
    ``cells`` features are all columns but the labels, or those named, and are left as ``cells``, to be prepared.
    """
    train, pool = parts["train"], parts.get("transfer")
    learned = values or indicators or [label or "label"]
    if label is None and classes is not None and learned[0] not in train.columns and not (values or indicators):
        learned = []  # nothing has a label
    has_columns(train, *learned, *(features or ()))
    held = {name: parts[name] for name in ("validation", "test") if name in parts}
    for rows in (*held.values(), *([pool] if pool is not None else [])):
        odd = set(rows.columns) ^ set(train.columns)
        odd -= {*learned} if rows is pool else set()
        if odd:
            what = f"{rows.path}: columns differ from {train.path}: {', '.join(sorted(odd))}"
            raise MeshError(what, where=rows.where, instead="the same columns in every file")
    pools: list[Rows] = []
    notes: list[str] = []
    if learned:
        train, pools, notes = apart(train, learned, list(held.values()), classes)
    pools += [pool] if pool is not None else []
    splits = {"train": train, **held}
    labelled = list(splits.values())
    every = [*labelled, *pools]
    others = [name for name in train.columns if name not in learned]
    numeric = train.numeric(others)
    chosen = list(features) if features is not None else others if cells else numeric
    numbers, used = set(numeric), set(chosen)
    if used & {*learned} or len(used) < len(chosen) or not chosen:
        why = "; ".join(f"{name}: {train.why_not(name)}" for name in others[:5] if name not in numbers)
        raise MeshError(
            f"{train.path}: features {chosen}" + (f" ({why})" if why and not chosen else ""),
            where=train.where,
            instead=f"numeric columns, each once, without {', '.join(map(repr, learned))}",
        )
    own = cells_of(every, chosen) if cells else None
    x = own.known(chosen) if own is not None else _features(every, chosen)
    y, count, names = _labels(labelled, learned, classes, bool(values), bool(indicators))
    y = y if y is None else torch.cat([y, no_labels(y, len(x) - len(y))])
    texts = [name for name in others if name not in numbers and (cells or name not in used)]
    left_out = {name: NOT_ASKED if features is not None else train.why_not(name) for name in others if name not in used}
    counting = _counting(x, len(train.cells), chosen)
    return Table(
        x,
        y,
        count,
        official=official(splits, pools),
        columns={name: _column(every, name) for name in texts},
        labels=names,
        source=str(train.path),
        reads=_reads(values, indicators, learned),
        features=list(chosen),
        left_out=left_out,
        cells=own,
        notes=[*notes, *(f"column {name!r} numbers the rows, and is a feature" for name in counting)],
    )


def _labels(
    parts: list[Rows], learned: list[str], classes: int | None, values: bool, indicators: bool
) -> tuple[Tensor | None, int, list[str]]:
    """The labels, how many classes there are, and names; nothing where no column is learned."""
    if not learned:
        return None, classes or 0, []
    if values or indicators:
        return (values_of(parts, learned) if values else indicators_of(parts, learned)), 0, learned
    return labels_of(parts, learned[0], classes)


def _reads(values: list[str] | None, indicators: list[str] | None, learned: list[str]) -> dict[str, str | list[str]]:
    """Which columns are labels, by the setting that names them."""
    if values or indicators:
        return {"values": values} if values else {"indicators": indicators or []}
    return {"label": learned[0]} if learned else {}


def _numbers(parts: list[Rows], names: list[str]) -> Tensor:
    """Features ``[N, F]`` float32."""
    return torch.cat([torch.tensor([part.numbers(name) for name in names], dtype=torch.float32).T for part in parts])


def _features(parts: list[Rows], names: list[str]) -> Tensor | Unread:
    """The same, not in memory where the rows are not."""
    if isinstance(parts[0].cells, UnreadRows):
        return _numbers_in_file(parts, names)
    return _numbers(parts, names).contiguous()


def _numbers_in_file(parts: list[Rows], names: list[str]) -> Unread:
    """The same, of rows that are not in memory, written to a file."""
    found = InFile("f4")
    for part in parts:
        for start in range(0, len(part.cells), AT_ONCE):
            own = slice(start, start + AT_ONCE)
            some = replace(part, lines=part.lines[own], cells=part.cells[own])
            try:
                found.add(_numbers([some], names))
            except MeshError:
                for name in names:  # which says of how many cells it is true
                    part.numbers(name)
                raise
    return UnreadNumbers(found.tensor().view(-1, len(names)))


def _column(parts: list[Rows], name: str) -> Sequence[str]:
    """A column of all parts, as text."""
    if isinstance(parts[0].cells, UnreadRows):
        return UnreadColumn([part.cells for part in parts], name, str)
    return [text for part in parts for text in part.texts(name)]


def cells_of(parts: list[Rows], names: list[str]) -> Cells:
    """The cells of columns, one part after the other; MeshError where they are not in memory."""
    if isinstance(parts[0].cells, UnreadRows):
        what, where = "rows are read later, and `prepare` is fitted on rows in memory", parts[0].where
        raise MeshError(what, where=f"{where.rpartition('.')[0]}.lazy", instead="lazy: false, or no `prepare`")
    places = [(part, row) for part in parts for row in range(len(part.cells))]
    columns = {name: [part.cells[row][name] for part, row in places] for name in names}

    def at(row: int, column: str) -> str:
        part, own = places[row]
        return part.at(own, column)

    return Cells(columns, parts[0].number, at, parts[0].where)


def _counting(x: Tensor | Unread, rows: int, names: Sequence[str]) -> list[str]:
    """The columns of ``x [N, F]`` whose values go up by one from row to row of the first ``rows``."""
    found = torch.full((len(names),), rows > 2)
    for start in range(0, rows - 1, AT_ONCE):
        if bool(found.any()):  # as nearly always in the first rows alone
            found &= (x[start : min(start + AT_ONCE + 1, rows)].diff(dim=0) == 1).all(0)
    return [name for name, counts in zip(names, found.tolist(), strict=True) if counts]


def bare_of(rows: Rows, learned: Sequence[str]) -> list[bool]:
    """Whether a row has no label, since every column of ``learned`` is empty, for each."""
    return [all(map(_blank, values)) for values in zip(*map(rows.column, learned), strict=True)]


def apart(
    train: Rows, learned: Sequence[str], others: Sequence[Rows], classes: int | None = None
) -> tuple[Rows, list[Rows], list[str]]:
    """The rows of train that have labels, those that have none, if any, and what is to be said of that.

    ``others``: the tables of other splits, which must have labels. MeshError where no row has any; ``classes``: as
    given, which may have been meant for such rows.
    """
    empty = bare_of(train, learned)
    if not any(empty):
        return train, [], []
    named = ", ".join(map(repr, learned))
    if all(empty):
        held = [str(rows.path) for rows in others if not all(map(_blank, rows.column(learned[0])))]
        also = f", and {' and '.join(held)} alone has some" if held else ""
        what = f"{train.path}: no row has a label in column {named}{also}"
        instead = "labels to learn from; or `transfer_path`, for rows without, beside a `path` of rows with labels"
        if classes is not None and not held:
            instead = (
                f"labels to learn from; or, for rows that all have none (classes: {classes}), no setting `label` and "
                "no column 'label' in any file"
            )
        raise MeshError(what, where=train.where, instead=instead)
    count = sum(empty)
    has = "row has" if count == 1 else "rows have"
    note = f"{train.path}: {count:,} of {len(empty):,} {has} no label in column {named}: the split `transfer`"
    return _some(train, empty, False), [_some(train, empty, True)], [note]


def official(parts: dict[str, Rows], pools: Sequence[Rows]) -> dict[str, Tensor]:
    """The rows of each split in a table of all of them, where there are several; ``pools`` are those of `transfer`."""
    sizes = {name: len(rows.cells) for name, rows in parts.items()}
    if pools:
        sizes["transfer"] = sum(len(rows.cells) for rows in pools)
    if len(sizes) == 1:
        return {}
    ends = torch.tensor(list(sizes.values())).cumsum(0).tolist()
    return {name: torch.arange(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def _some(rows: Rows, empty: Sequence[bool], wanted: bool) -> Rows:
    at = [row for row, blank in enumerate(empty) if blank is wanted]
    if isinstance(rows.cells, UnreadRows):
        return replace(
            rows, lines=array("q", [rows.lines[row] for row in at]), cells=rows.cells.select(torch.tensor(at))
        )
    return replace(rows, lines=[rows.lines[row] for row in at], cells=[rows.cells[row] for row in at])


def _blank(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip()) or cell != cell


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

    Whole numbers from 0 where most labels are numbers, else class names, numbered as in ``names``, by default as in the
    sorted names of the first part. Text that is one of ``names`` in every row is a name, also where it reads as a
    number.
    """
    train, given = parts[0], names
    if names is not None:
        classes = len(names)
    called = set(names or ())
    if train.is_numeric(label) and not all(isinstance(one, str) and one in called for one in train.column(label)):
        found = []
        for part in parts:
            instead = "a whole number from 0 in every row, or a class name in most"
            values = torch.tensor(part.numbers(label, instead), dtype=torch.float64)
            name = f"{part.path}, column {label!r}"
            y, classes = labels(values, len(values), classes, name, part.where, at=part.line)
            found.append(y)
        assert classes is not None
        return torch.cat(found), classes, names or []
    names = sorted({name for name in train.texts(label) if name.strip()}) if names is None else names
    if classes is not None and len(names) > classes:
        raise MeshError(f"{train.path}: {len(names)} class names for {classes} classes", where=train.where)
    number = {name: i for i, name in enumerate(names)}
    known = "the given labels" if given is not None else train.path
    ids = []
    for part in parts:
        for row, name in enumerate(part.texts(label)):
            if not name.strip():
                empty = sum(not other.strip() for other in part.texts(label))
                raise MeshError(
                    f"{part.at(row, label)}: {shown(name)} is not a class"
                    + (f"; {empty} rows have no label" if empty > 1 else ""),
                    where=part.where,
                    instead=f"a class in column {label!r} of every row; leave rows without one out",
                )
            if name not in number:
                raise MeshError(
                    f"{part.at(row, label)}: {shown(name)} is not a class of {known}",
                    where=part.where,
                    instead=nearest(name, names, "classes"),
                )
            ids.append(number[name])
    return torch.tensor(ids), classes or len(names), names


def values_of(parts: list[Rows], columns: list[str]) -> Tensor:
    """Values ``[N, T]`` float32."""
    instead = "a number in every row; leave rows without one out"
    found = [torch.tensor([part.numbers(name, instead) for name in columns], dtype=torch.float32).T for part in parts]
    return torch.cat(found).contiguous()


def indicators_of(parts: list[Rows], columns: list[str]) -> Tensor:
    """Indicators ``[N, K]`` int64, 0 or 1."""

    def holds(part: Rows, column: str, row: int, raw: Any) -> int:
        word = str(raw).strip().lower()
        number = float(word == "true") if word in ("true", "false") else part.number(raw)
        if number not in (0, 1):
            what = f"{part.at(row, column)}: {shown(raw)} is neither 1 nor 0"
            raise MeshError(what, where=part.where, instead="1 or 0, or true or false, in every row")
        return int(number)

    found = [
        [holds(part, name, row, raw) for name, raw in zip(columns, values, strict=True)]
        for part in parts
        for row, values in enumerate(zip(*map(part.column, columns), strict=True))
    ]
    return torch.tensor(found, dtype=torch.int64)


def cell(value: Any) -> Any:
    """A value of JSON, Arrow or a database as a cell: numbers and text as they are, null as empty text.

    Decimals are numbers; lists, objects, true and false are their JSON; dates and the rest are text.
    """
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (list, dict, bool)):
        return json.dumps(value, default=str)  # a table's structs may hold dates, decimals or bytes
    return value if isinstance(value, (int, float)) else str(value)


def shown(value: Any) -> str:
    """A value in a message."""
    if not may_quote():
        return quoted(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def number_of(value: Any) -> float | None:
    """The number that a cell holds, if it holds one."""
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:  # a whole number beyond every float
        return float("inf")
