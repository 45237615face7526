"""Samples that stay where they are, and are read when someone asks for them: sets larger than memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

AT_ONCE = 2**23
"""Bytes of samples that are read together where all of them are looked at."""


class Unread(ABC):
    """Numbers ``[N, ...]`` of which indexing reads some: ``x[rows]``, with a slice or row numbers, is a float32 tensor.

    ``shape``: theirs, as of a tensor. What is read are the same values each time, on the device that :meth:`to` names.
    """

    dtype = torch.float32

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = torch.Size(shape)
        self.device = torch.device("cpu")
        self._rows: Tensor | None = None  # of the source, in this order; None: all
        self._blank: Tensor | None = None  # which rows of the source are not to be read, [N] bool
        self._through: tuple[Callable[[Tensor, Tensor], Tensor], Tensor] | None = None

    @abstractmethod
    def read(self, rows: Tensor) -> Tensor:
        """The values in rows of the source, int64, in their order: float32, on the CPU, and the caller's own."""

    @property
    def asks(self) -> bool:
        """Whether something else can begin to read, so that :meth:`ask` is of use."""
        return False

    def ask(self, rows: Tensor) -> None:  # noqa: B027  # most have nobody who could
        """Begin to read rows of the source that :meth:`read` will be asked for, if something else can do so."""

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        """How many axes they have, samples included."""
        return len(self.shape)

    def numel(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that their values take once they are read."""
        return 4 * self.numel()

    def __getitem__(self, at: slice | Tensor | list[int]) -> Tensor:
        """The samples at positions; beside a slice those that follow it are asked for."""
        if isinstance(at, slice):
            places = torch.arange(*at.indices(len(self)))
            if len(places) and self.asks:
                self.soon(torch.arange(int(places[-1]) + 1, min(int(places[-1]) + 1 + len(places), len(self))))
        elif isinstance(at, Tensor) and at.dtype == torch.int64:
            places = at.cpu()
        else:
            places = torch.as_tensor(at).cpu()
            places = places.nonzero().flatten() if places.dtype == torch.bool else places
        rows = self._of(places)
        found = (self.read(rows) if self._blank is None else self._read(rows)).to(self.device)
        if self._through is not None:
            change, ids = self._through
            return change(found, ids[places])
        return found

    def taker(self) -> Callable[[Tensor], Tensor]:
        """What gives samples at positions, int64, as indexing does; for many batches, in as few steps as may be."""
        if self.device.type != "cpu" or self._blank is not None or self._through is not None:
            return self.__getitem__
        rows, read = self._rows, self.read
        return read if rows is None else lambda at: read(rows.index_select(0, at))

    def soon(self, at: Tensor) -> None:
        """Begin to read samples at positions that are asked for next."""
        rows = self._of(at.cpu())
        if len(rows) and (self._blank is None or not bool(self._blank[rows].any())):
            self.ask(rows)

    def select(self, rows: Tensor) -> Unread:
        """Those at positions, in that order; nothing is read."""
        made = self._twin()
        made._rows = self._of(rows.cpu())
        made.shape = torch.Size([len(rows), *self.shape[1:]])
        if self._through is not None:
            made._through = self._through[0], self._through[1][rows.cpu()]
        return made

    def to(self, device: torch.device) -> Unread:
        """The same, to be read onto a device."""
        made = self._twin()
        made.device = torch.device(device)
        return made

    def through(self, change: Callable[[Tensor, Tensor], Tensor], ids: Tensor) -> Unread:
        """The same, of which what is read is changed: ``change(x, ids)`` of the samples' ids."""
        made = self._twin()
        made._through = change, ids
        return made

    def blanked(self, blank: Tensor) -> Unread:
        """The same, of which samples that are ``blank [N]`` bool are NaN, and never read."""
        made = self._twin()
        hidden = torch.zeros(int(self._of(torch.arange(len(self))).max()) + 1, dtype=torch.bool)
        hidden[self._of(blank.nonzero().flatten())] = True
        made._blank = hidden if self._blank is None else hidden | self._blank[: len(hidden)]
        return made

    def parts(self) -> Iterator[Tensor]:
        """All of them in order, a few MiB at a time."""
        size = max(1, AT_ONCE // (4 * math.prod(self.shape[1:]) or 1))
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def _twin(self) -> Unread:
        """The same, to be changed; what it has open stays open in both."""
        made = object.__new__(type(self))
        made.__dict__ |= vars(self)
        return made

    def _of(self, at: Tensor) -> Tensor:
        return at if self._rows is None else self._rows.index_select(0, at)

    def _read(self, rows: Tensor) -> Tensor:
        assert self._blank is not None
        if not bool((hidden := self._blank[rows]).any()):
            return self.read(rows)
        found = torch.full((len(rows), *self.shape[1:]), torch.nan)
        if not bool(hidden.all()):
            found[~hidden] = self.read(rows[~hidden])
        return found


Numbers = Tensor | Unread
"""Samples that are numbers: in memory, or read when they are asked for."""


def chunks(x: Tensor | Unread) -> Iterator[Tensor]:
    """Samples in order, all at once if they are in memory."""
    if isinstance(x, Unread):
        yield from x.parts()
    else:
        yield x


def joined(parts: Sequence[Any]) -> Unread:
    """Samples one after the other, of which some stay unread."""
    return _Joined(parts)


class _Joined(Unread):
    def __init__(self, parts: Sequence[Tensor | Unread]) -> None:
        super().__init__([sum(len(part) for part in parts), *parts[0].shape[1:]])
        self._parts = list(parts)
        self._starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)

    def read(self, rows: Tensor) -> Tensor:
        owners, found = self._owners(rows), None
        for number, part in enumerate(self._parts):
            own = owners == number
            if bool(own.all()):  # as nearly always: a batch is of one split
                return part[rows - self._starts[number]]
            if bool(own.any()):
                found = torch.empty(len(rows), *self.shape[1:]) if found is None else found
                found[own] = part[rows[own] - self._starts[number]]
        assert found is not None
        return found

    @property
    def asks(self) -> bool:
        return any(isinstance(part, Unread) and part.asks for part in self._parts)

    def ask(self, rows: Tensor) -> None:
        owners = self._owners(rows)
        for number, part in enumerate(self._parts):
            if isinstance(part, Unread) and bool((own := owners == number).any()):
                part.soon(rows[own] - self._starts[number])

    def _owners(self, rows: Tensor) -> Tensor:
        return torch.searchsorted(self._starts, rows, right=True) - 1
