"""Rows of a table that stay where they are, and are read when someone asks for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import accumulate
from typing import Any, overload

import torch
from torch import Tensor

AT_ONCE = 1024  # rows that are read together where all of them are looked at

Cells = dict[str, Any]
Known = dict[str, list[Any]]


class UnreadRows(Sequence[Cells], ABC):
    """The cells of every row, by column. ``kept``: columns that are in memory, for what asks for one of all rows."""

    def __init__(self, count: int, kept: Known | None = None) -> None:
        self._count = count
        self._own: Tensor | None = None  # which rows of the file these are, in this order; None: all
        self._kept = kept or {}

    @abstractmethod
    def read(self, at: Sequence[int]) -> list[Cells]:
        """The cells of rows of the file, in their order."""

    def __len__(self) -> int:
        return self._count if self._own is None else len(self._own)

    @overload
    def __getitem__(self, at: int) -> Cells: ...
    @overload
    def __getitem__(self, at: slice) -> list[Cells]: ...
    def __getitem__(self, at: int | slice) -> Cells | list[Cells]:
        """One row, or those of a slice."""
        if isinstance(at, slice):
            return self.some(range(*at.indices(len(self))))
        return self.some([range(len(self))[at]])[0]

    def __iter__(self) -> Iterator[Cells]:
        for start in range(0, len(self), AT_ONCE):
            yield from self[start : start + AT_ONCE]

    def some(self, at: Sequence[int]) -> list[Cells]:
        """Rows by their numbers among these."""
        return self.read(at if self._own is None else self._own[torch.as_tensor(at)].tolist())

    def select(self, at: Tensor) -> UnreadRows:
        """Those at positions, in that order; nothing is read."""
        made = copy(self)
        made._own = at if self._own is None else self._own[at]
        made._kept = {name: [values[row] for row in at.tolist()] for name, values in self._kept.items()}
        return made

    def bare(self) -> UnreadRows:
        """The same, of which no column is kept."""
        made = copy(self)
        made._kept = {}
        return made

    def column(self, name: str) -> Iterator[Any]:
        """One column of all rows, in order."""
        return iter(self._kept[name]) if name in self._kept else (cells[name] for cells in self)


class UnreadColumn(Sequence[str]):
    """A column of several tables, one after the other, as text. ``text``: of a cell."""

    def __init__(self, parts: Sequence[Sequence[Cells]], name: str, text: Callable[[Any], str]) -> None:
        self._parts, self._name, self._text = list(parts), name, text
        self._ends = list(accumulate(len(part) for part in parts))
        self._next = -1  # the row that follows the one that was asked for last
        self._block: tuple[int, list[str]] = 0, []  # where it begins, and cells that were read together

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        """One cell, or those of a slice."""
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(len(self)))]
        row = range(len(self))[at]
        follows, self._next = row == self._next, row + 1
        begin, block = self._block
        if not begin <= row < begin + len(block):
            part = bisect_right(self._ends, row)
            first = row - (self._ends[part - 1] if part else 0)
            cells = self._parts[part][first : first + (AT_ONCE if follows else 1)]  # who goes on asks for more
            block = [self._text(one[self._name]) for one in cells]
            if not follows:
                return block[0]
            begin, self._block = row, (row, block)
        return block[row - begin]

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            for one in column_of(part, self._name):
                yield self._text(one)


def column_of(cells: Sequence[Cells], name: str) -> Iterator[Any]:
    """A column's values, in order, of rows in memory or not."""
    return cells.column(name) if isinstance(cells, UnreadRows) else (one[name] for one in cells)
