"""Text as a model reads it: what one tokenizer makes of a stream, and the batches cut from that.

Every agent tokenises for itself, so batches of several agents agree in their samples, not in their tokens. What has a
row per token is flat, ``[N, ...]`` in the order of samples and, within one, of tokens: no row stands for padding, and
the mean over rows is the mean over what counts.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.streams.in_file import InFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AT_ONCE = 4096  # samples whose units are looked at together where all of them are
STEP = 8  # lengths to which samples are padded where the shape must not depend on their company: 8, 16, 24, 32, 40 ...


@dataclass
class Row:
    """One sample as a tokenizer gives it.

    ``units``: the positions whose output answers for something that has a loss: for a language model the position
    before each learned token, for tags each word's first token, for a class of the whole sample none. ``targets``: the
    answer, for each unit; ``spans``: the characters that it is about, from start to end. ``texts``: how many tokens
    each text of it has, where a model reads several one by one: a query's candidates, or the two answers of a pair;
    units count through all of them.
    """

    ids: list[int]
    units: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    texts: list[int] | None = None


def side_by_side(chosen: Row, rejected: Row) -> Row:
    """One sample of two answers."""
    first = len(chosen.ids)
    return Row(
        chosen.ids + rejected.ids,
        chosen.units + [first + unit for unit in rejected.units],
        chosen.targets + rejected.targets,
        chosen.spans + rejected.spans,
        [first, len(rejected.ids)],
    )


@dataclass
class Tokens:
    """A batch of B samples in R rows of L tokens; ``R < B`` where samples are packed, ``R > B`` where they are lists.

    ``positions`` (packed only) restart at every sample, and a model that is given them keeps samples apart; the mask
    is then for reading, not for the model.
    """

    ids: Tensor  # [R, L] int64
    mask: Tensor  # [R, L] bool, False on padding
    positions: Tensor | None  # [R, L] int64
    units: Tensor  # [N] int64: flat positions, row * L + column, of the units
    targets: Tensor  # [N] int64
    counts: Tensor  # [B] int64: units of each sample
    tokens: Tensor  # [T] int64: flat positions of every token that is no padding
    lengths: Tensor  # [B] int64: tokens of each sample
    spans: Tensor  # [N, 3] int64: the sample's number in the batch, start and end in characters
    encoded: Encoded  # the samples that the batch was cut from
    texts: Tensor | None = None  # [B] int64: rows of each sample, one after the other, where they are lists

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.ids.device

    @property
    def pairs(self) -> Tensor:
        """Of samples with two answers what each unit is about, ``[N, 3]`` int64: the sample's number in the batch, the
        answer, 0 the chosen or 1 the rejected one, and its token.
        """
        assert self.texts is not None
        sample = self.spans[:, 0]
        answer = self.units // self.ids.shape[1] - starts_of(self.texts)[sample]
        return torch.stack([sample, answer, self.targets], 1)

    def to(self, device: torch.device) -> Tokens:
        """The same batch on a device."""
        if self.ids.device == device:
            return self
        moved: dict[str, Any] = {n: value.to(device) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def parts(self, size: int) -> Iterator[tuple[Tensor, Tokens]]:
        """See :meth:`Encoded.parts`."""
        return self.encoded.parts(size)


class Encoded:
    """The samples of a stream, flat: rows of other shard views are views of the same storage.

    ``pack``: tokens that one row of a training batch may hold, where several samples share it; None: a row each. Tokens
    that are mapped from files stay there: what is asked for goes to the device.
    """

    def __init__(self, store: _Store, rows: Tensor, pad: int, pack: int | None = None) -> None:
        self._store, self._rows, self.pad, self.pack = store, rows, pad, pack
        self._starts: Tensor | None = None
        self._device: torch.device | None = None  # where mapped tokens go; None: where the store is

    @classmethod
    def of(cls, rows: Sequence[Row], pad: int, *, pack: int | None = None) -> Encoded:
        """Encoded samples, in their order."""
        made = Collected()
        made.add(rows)
        return made.encoded(pad, pack)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def device(self) -> torch.device:
        """Where the tokens are, or go."""
        return self._device or self._rows.device

    @property
    def mapped(self) -> bool:
        """Whether the tokens are in files, and not in memory."""
        return self._store.mapped

    def select(self, rows: Tensor) -> Encoded:
        """The samples at ``rows [n]`` int64, in that order."""
        made = Encoded(self._store, self._rows[rows.to(self._rows.device)], self.pad, self.pack)
        made._device = self._device
        return made

    def to(self, device: torch.device) -> Encoded:
        """The same samples on a device."""
        if self.mapped:
            made = Encoded(self._store, self._rows, self.pad, self.pack)
            made._device = device
            return made
        return Encoded(self._store.to(device), self._rows.to(device), self.pad, self.pack)

    def samples(self) -> Iterator[Row]:
        """Each sample, as it was made."""
        store = self._store.to(torch.device("cpu"))
        for row in self._rows.tolist():
            own = slice(int(store.starts[row]), int(store.starts[row + 1]))
            asked = slice(int(store.unit_starts[row]), int(store.unit_starts[row + 1]))
            spans = [(begin, end) for begin, end in store.spans[asked].tolist()]
            listed, texts = store.text_starts, None
            if listed is not None:
                texts = store.texts[int(listed[row]) : int(listed[row + 1])].tolist()
            yield Row(store.ids[own].tolist(), store.units[asked].tolist(), store.targets[asked].tolist(), spans, texts)

    @property
    def counts(self) -> Tensor:
        """Units of each sample, ``[n]`` int64."""
        return self._counts.to(self.device)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each sample, ``[n]`` int64."""
        return self._lengths.to(self.device)

    @property
    def _counts(self) -> Tensor:
        return self._store.unit_starts[self._rows + 1] - self._store.unit_starts[self._rows]

    @property
    def _lengths(self) -> Tensor:
        return self._store.starts[self._rows + 1] - self._store.starts[self._rows]

    @property
    def targets(self) -> Tensor:
        """What the units answer, ``[N]`` int64, one sample's after the other's."""
        return self._store.targets[self._units()].to(self.device)

    @property
    def spans(self) -> Tensor:
        """The characters that each unit is about, ``[N, 2]`` int64: the first, and the one after the last."""
        return self._store.spans[self._units()].to(self.device)

    @property
    def characters(self) -> Tensor:
        """How many characters each unit is about, ``[N]`` int32."""
        found = [torch.empty(0, dtype=torch.int32)]
        for rows in self._rows.split(AT_ONCE):  # the places of all of them together may be more than memory holds
            starts = self._store.unit_starts
            spans = self._store.spans[ranges(starts[rows], starts[rows + 1] - starts[rows])]
            found.append((spans[:, 1] - spans[:, 0]).to(torch.int32).cpu())
        return torch.cat(found).to(self.device)

    def _units(self) -> Tensor:
        return ranges(self._store.unit_starts[self._rows], self._counts)

    def endings(self) -> Tensor:
        """The last target of every run of consecutive learned tokens, ``[n]`` int64."""
        at, rows = self._store.units[self._units()], torch.repeat_interleave(torch.arange(len(self)), self.counts.cpu())
        at = at.to(self.device)
        last = torch.ones(len(at), dtype=torch.bool, device=at.device)
        rows = rows.to(at.device)
        last[:-1] = (rows[1:] != rows[:-1]) | (at[1:] != at[:-1] + 1)
        return self.targets[last]

    def unit_rows(self, at: Tensor) -> Tensor:
        """Where the units of the samples at positions ``at`` stand among all, ``[n]`` int64."""
        if self._starts is None:
            self._starts = starts_of(self.counts)
        return ranges(self._starts[at], self._starts[at + 1] - self._starts[at])

    def contents(self) -> Iterator[bytes]:
        """All that a model is given of each sample, and asked of it."""
        store = self._store.to(torch.device("cpu"))
        listed = store.text_starts
        for row in self._rows.tolist():
            own = slice(int(store.starts[row]), int(store.starts[row + 1]))
            asked = slice(int(store.unit_starts[row]), int(store.unit_starts[row + 1]))
            parts = [store.ids[own], store.units[asked]]
            if listed is not None:
                parts.append(store.texts[int(listed[row]) : int(listed[row + 1])])
            yield b"".join(len(part).to_bytes(8, "little") + part.numpy().tobytes() for part in parts)

    def batch(self, at: Tensor) -> Tokens:
        """The samples at positions ``at [B]``, padded to the longest of them, or packed."""
        chosen = self.select(at)
        return chosen._cut(*chosen._packed(), packed=True) if self.pack else chosen.whole()

    def whole(self) -> Tokens:
        """All samples, a row each, padded to the longest."""
        return self._cut(*self._padded(int(self._texts()[1].max())))

    def parts(self, size: int) -> Iterator[tuple[Tensor, Tokens]]:
        """Batches of a shape that depends on each sample alone: positions ``[k]``, and ``size >= k`` rows of tokens.

        A matrix product's rows may change with its shape; here equal samples always stand in equal shapes, in whatever
        company they were asked for. Rows beyond the k positions repeat the last sample.
        """
        shapes = self.shapes
        for shape in shapes.unique(dim=0):
            for at in (shapes == shape).all(1).nonzero().flatten().split(size):
                full = torch.cat([at, at[-1:].expand(size - len(at))]) if len(at) < size else at
                chosen = self.select(full)
                yield at.to(self.device), chosen._cut(*chosen._padded(int(shape[0])))

    @property
    def shapes(self) -> Tensor:
        """The shape that each sample stands in alone, ``[n, 2]`` int64: how wide its rows are, and how many."""
        if self._store.text_starts is None:
            return torch.stack([padded_length(self._lengths), torch.ones_like(self._lengths)], 1)
        counts, lengths = self._texts()
        longest = torch.zeros_like(counts)
        longest.scatter_reduce_(0, torch.repeat_interleave(counts), lengths, "amax")
        return torch.stack([padded_length(longest), counts], 1)

    def _texts(self) -> tuple[Tensor, Tensor]:
        """Rows of each sample, ``[n]`` int64, and tokens of each row, ``[R]`` int64, one sample's after the other's."""
        starts = self._store.text_starts
        if starts is None:
            return torch.ones_like(self._lengths), self._lengths
        counts = starts[self._rows + 1] - starts[self._rows]
        return counts, self._store.texts[ranges(starts[self._rows], counts)]

    def _padded(self, width: int) -> tuple[Tensor, int, int]:
        """Where each row's tokens begin, how many rows there are, and how long they are."""
        rows = len(self._texts()[1])
        return torch.arange(rows, device=self._rows.device) * width, rows, width

    def _packed(self) -> tuple[Tensor, int, int]:
        """The same with samples put into the first row that has room for them."""
        fill: list[int] = []
        places: list[tuple[int, int]] = []
        room = max(self.pack or 0, int(self._lengths.max()))
        for length in self._lengths.tolist():
            row = next((number for number, used in enumerate(fill) if used + length <= room), len(fill))
            if row == len(fill):
                fill.append(0)
            places.append((row, fill[row]))
            fill[row] += length
        width = max(fill)
        begins = torch.tensor([row * width + column for row, column in places], device=self._rows.device)
        return begins, len(fill), width

    def _cut(self, begins: Tensor, rows: int, width: int, packed: bool = False) -> Tokens:
        store, device = self._store, self._rows.device
        lengths, counts = self._lengths, self._counts
        texts, widths = self._texts()
        tokens = ranges(begins, widths)
        ids = torch.full((rows * width,), self.pad, dtype=torch.int64, device=device)
        ids[tokens] = store.ids[ranges(store.starts[self._rows], lengths)].long()
        mask = torch.zeros(rows * width, dtype=torch.bool, device=device)
        mask[tokens] = True
        positions: Tensor | None = None
        if packed:  # padding restarts at every token, so that it belongs to no sample
            positions = torch.zeros(rows * width, dtype=torch.int64, device=device)
            positions[tokens] = ranges(torch.zeros_like(lengths), lengths)
            positions = positions.view(rows, width)
        units = self._units()
        sample = torch.repeat_interleave(torch.arange(len(self), device=device), counts)
        if store.text_starts is None:
            places = begins[sample] + store.units[units]
        else:  # a sample's rows do not follow each other without a gap
            places = tokens[starts_of(lengths)[sample] + store.units[units]]
        made = Tokens(
            ids=ids.view(rows, width),
            mask=mask.view(rows, width),
            positions=positions,
            units=places,
            targets=store.targets[units],
            counts=counts,
            tokens=tokens,
            lengths=lengths,
            spans=torch.cat([sample[:, None], store.spans[units]], 1),
            encoded=self,
            texts=None if store.text_starts is None else texts,
        )
        return made.to(self.device)


@dataclass
class _Store:
    """Every sample's tokens and units, one after the other; ``starts`` and ``unit_starts``, ``[n + 1]``, say where."""

    ids: Tensor  # [tokens] int32
    starts: Tensor
    units: Tensor  # [units] int64: positions within the sample
    targets: Tensor  # [units] int64
    spans: Tensor  # [units, 2] int64
    unit_starts: Tensor
    texts: Tensor  # [texts] int64: tokens of each text of a list
    text_starts: Tensor | None  # None: a sample is one text
    mapped: bool = False  # whether tokens and units are in files

    def to(self, device: torch.device) -> _Store:
        if self.ids.device == device or self.mapped:
            return self
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


class Collected:
    """Samples that are encoded some at a time. ``mapped``: their tokens are written to files that are then mapped."""

    def __init__(self, mapped: bool = False) -> None:
        self._mapped = mapped
        made = InFile if mapped else _InMemory
        self._ids, self._units, self._targets, self._spans = made("i4"), made("i8"), made("i8"), made("i8")
        self._texts = made("i8")
        self._counts: list[tuple[array[int], array[int], array[int]]] = []  # of tokens, units and texts, by sample
        self._count, self._listed = 0, False

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Sequence[Row]) -> None:
        """Put samples behind those that are there."""
        self._count += len(rows)
        self._listed |= any(row.texts is not None for row in rows)
        texts = [row.texts or [len(row.ids)] for row in rows]
        for column, values in (
            (self._ids, (row.ids for row in rows)),
            (self._units, (row.units for row in rows)),
            (self._targets, (row.targets for row in rows)),
            (self._spans, (span for row in rows for span in row.spans)),
            (self._texts, texts),
        ):
            column.add(list(chain.from_iterable(values)))
        counts = ((len(row.ids), len(row.units), len(own)) for row, own in zip(rows, texts, strict=True))
        tokens, units, listed = zip(*counts, strict=True) if rows else ((), (), ())
        self._counts.append((array("q", tokens), array("q", units), array("q", listed)))

    def encoded(self, pad: int, pack: int | None = None) -> Encoded:
        """All of them; see :class:`Encoded`."""
        starts, unit_starts, text_starts = (
            torch.from_numpy(np.concatenate([np.zeros(1, np.int64), *(part[n] for part in self._counts)]).cumsum())
            for n in range(3)
        )
        store = _Store(
            self._ids.tensor(), starts, self._units.tensor(), self._targets.tensor(), self._spans.tensor().view(-1, 2),
            unit_starts, self._texts.tensor(), text_starts if self._listed else None, self._mapped,
        )  # fmt: skip
        return Encoded(store, torch.arange(len(starts) - 1), pad, pack)


class _InMemory:
    """Whole numbers in memory, one part after the other."""

    def __init__(self, kind: str) -> None:
        self._kind, self._parts = np.dtype(kind), list[Any]()

    def add(self, values: list[int]) -> None:
        self._parts.append(np.array(values, self._kind))

    def tensor(self) -> Tensor:
        return torch.from_numpy(np.concatenate([np.empty(0, self._kind), *self._parts]))


def starts_of(counts: Tensor) -> Tensor:
    """Where each group of so many rows begins, and where the last one ends: ``[n + 1]`` int64 of ``[n]``."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def ranges(begins: Tensor, counts: Tensor) -> Tensor:
    """``begins[i], begins[i] + 1 ...``, so many numbers as ``counts[i]`` says, one after the other, int64."""
    if not len(counts):
        return counts
    ends = counts.cumsum(0)
    return torch.arange(int(ends[-1]), device=counts.device) + torch.repeat_interleave(begins - ends + counts, counts)


def padded_length(lengths: Tensor) -> Tensor:
    """The next of 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160 ...: from 33 on at most a fifth is padding."""
    sizes = [STEP, 2 * STEP, 3 * STEP, 4 * STEP]
    while sizes[-1] < int(lengths.max()):
        sizes += [sizes[-1] * quarters // 4 for quarters in (5, 6, 7, 8)]
    table = torch.tensor(sizes, device=lengths.device)
    return table[torch.searchsorted(table, lengths)]
