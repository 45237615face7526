"""What is done about personal data in samples: it is replaced, or the samples that hold it are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch

from kdmesh.personal.changes import Changed, Replacing, changed
from kdmesh.personal.samples import Field, fields, with_changes
from kdmesh.streams.texts import AT_ONCE, Sample, Texts

if TYPE_CHECKING:
    from kdmesh.personal.entities import Finder, Part
    from kdmesh.streams.cells import Cells
    from kdmesh.streams.table import Table


class Finding(NamedTuple):
    """One part of one text that is personal. ``value``: what it says, which is for no file.

    ``row``: of the sample in its table; ``field``: the name of its field, or `column NAME`.
    """

    row: int
    field: str
    part: Part
    value: str


@dataclass
class Tally:
    """How much was found. ``samples``: that hold any; ``dropped``: how many were left out for it."""

    samples: int = 0
    dropped: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)

    def add(self, findings: Iterable[Finding]) -> None:
        """Count what was found in one sample."""
        found = list(findings)
        self.samples += bool(found)
        self.by_kind.update(one.part.kind for one in found)


@dataclass(frozen=True)
class Treatment:
    """``replacing``: what stands in the place of a part; None: samples that hold one are left out.

    ``columns``: those of the data that are looked at beside the texts of samples; None: all.
    """

    finder: Finder
    replacing: Replacing | None
    columns: frozenset[str] | None = None

    def asks(self, column: str) -> bool:
        """Whether a column is looked at."""
        return self.columns is None or column in self.columns

    def __call__(self, sample: Sample) -> Sample:
        """The sample with its parts replaced."""
        return self.samples([sample])[0][0]

    def samples(self, samples: Sequence[Sample]) -> list[tuple[Sample, list[tuple[str, Part, str]]]]:
        """Each sample with its parts replaced, and what these were: field, part, and the text that it was."""
        texts = [list(fields(one)) for one in samples]
        every = dict.fromkeys(one.text for own in texts for one in own)
        parts = dict(zip(every, self.finder.find(list(every)), strict=True))
        return [(self._changed(one, parts), _told(own, parts)) for one, own in zip(samples, texts, strict=True)]

    def values(self, values: Sequence[str]) -> list[tuple[str, list[Part]]]:
        """The same of the values of a column."""
        every = dict.fromkeys(values)
        parts = dict(zip(every, self.finder.find(list(every)), strict=True))
        return [(self._made(one, parts[one]).text, parts[one]) for one in values]

    def cell(self, column: str, value: Any, number: Callable[[Any], float | None]) -> Any:
        """A cell of a column with its parts replaced, if it holds words; ``number``: the number that a cell holds."""
        if self.replacing is None or not self.asks(column) or not isinstance(value, str) or number(value) is not None:
            return value
        return self.values([value])[0][0]

    def _changed(self, sample: Sample, parts: dict[str, list[Part]]) -> Sample:
        def change(text: str) -> str:
            return self._made(text, parts[text]).text if parts.get(text) else text

        if self.replacing is None:
            return sample
        spans = sample.spans
        if spans and parts.get(sample.text):
            spans = self._made(sample.text, parts[sample.text]).tags(spans)
        return with_changes(sample, change, spans)

    def _made(self, text: str, parts: Sequence[Part]) -> Changed:
        return changed(text, parts if self.replacing is not None else (), self.replacing or _nothing)


def _nothing(kind: str, value: str) -> str:
    raise AssertionError(kind)


def _told(own: Iterable[Field], parts: dict[str, list[Part]]) -> list[tuple[str, Part, str]]:
    return [(one.name, part, one.text[part.start : part.end]) for one in own for part in parts[one.text]]


def treated(table: Table, treatment: Treatment, tell: Callable[[Finding], None]) -> tuple[Table, Tally]:
    """A table without its personal data, and how much was found; ``tell`` is told each part.

    Texts that are not in memory are looked at once now, and changed each time that they are read.
    """
    tally, gone = Tally(), torch.zeros(len(table), dtype=torch.bool)
    columns = {name: table.columns[name] for name in table.columns if treatment.asks(name)}
    words = _words(table, treatment)
    x = table.x
    made: list[Sample] = []
    for start in range(0, len(table), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(table)))
        found: list[list[Finding]] = [[] for _ in rows]
        if isinstance(x, Texts):
            for place, (sample, own) in enumerate(treatment.samples([*x[rows.start : rows.stop]])):
                found[place] += [Finding(rows[place], *one) for one in own]
                if not x.unread:
                    made.append(sample)
        for name, values in {**words, **columns}.items():  # a column may be both: it counts once
            own_values = list(values[rows.start : rows.stop])
            for place, (_, parts) in enumerate(treatment.values(own_values)):
                said = own_values[place]
                found[place] += [
                    Finding(rows[place], f"column {name}", one, said[one.start : one.end]) for one in parts
                ]
        for place, own_findings in enumerate(found):
            tally.add(own_findings)
            gone[rows[place]] = bool(own_findings)
            for one in own_findings:
                tell(one)
    if treatment.replacing is None:
        tally.dropped = int(gone.sum())
        return (without(table, gone) if gone.any() else table), tally
    if isinstance(x, Texts):
        x = x.changed(treatment) if x.unread else Texts(made)
    changed_columns = {name: ChangedColumn(values, treatment) for name, values in columns.items()}
    held = {name: values if _unread(table) else list(values) for name, values in changed_columns.items()}
    return replace(table, x=x, columns={**table.columns, **held}, cells=_changed(table.cells, words, treatment)), tally


def _unread(table: Table) -> bool:
    return isinstance(table.x, Texts) and table.x.unread


def _words(table: Table, treatment: Treatment) -> dict[str, list[str]]:
    """By column, the cells of which samples are to be made that hold no number; "" in the place of others."""
    if table.cells is None:
        return {}
    number, found = table.cells.number, {}
    for name, cells in table.cells.columns.items():
        if treatment.asks(name):
            found[name] = [one if isinstance(one, str) and number(one) is None else "" for one in cells]
    return found


def _changed(cells: Cells | None, words: dict[str, list[str]], treatment: Treatment) -> Cells | None:
    """Cells with their words changed."""
    if cells is None or not words:
        return cells
    made = dict(cells.columns)
    for name, own in words.items():
        pairs = zip(cells.columns[name], own, treatment.values(own), strict=True)
        made[name] = [told if word else cell for cell, word, (told, _) in pairs]
    return replace(cells, columns=made)


class ChangedColumn(Sequence[str]):
    """A column whose values are changed when they are read."""

    def __init__(self, values: Sequence[str], treatment: Treatment) -> None:
        self._values, self._treatment = values, treatment

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        """One value, or those of a slice."""
        if isinstance(at, slice):
            return [told for told, _ in self._treatment.values(list(self._values[at]))]
        return self._treatment.values([self._values[at]])[0][0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            yield from self[start : start + AT_ONCE]


def without(table: Table, gone: torch.Tensor) -> Table:
    """The table without some rows: what is left is numbered anew."""
    left = (~gone).nonzero().flatten()
    place = torch.full((len(table),), -1, dtype=torch.int64)
    place[left] = torch.arange(len(left))
    rows = left.tolist()
    x = table.x
    return replace(
        table,
        x=x[left] if isinstance(x, Texts | torch.Tensor) else x.select(left),
        y=None if table.y is None else table.y[left],
        official={name: (new := place[own])[new >= 0] for name, own in table.official.items()},
        columns={name: [values[row] for row in rows] for name, values in table.columns.items()},
        cells=None if table.cells is None else table.cells.take(rows),
        known=None if table.known is None else table.known[left],
    )
