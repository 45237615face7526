"""What `prepare` makes samples of: the cells of named columns, or the values of samples, as their source has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError, may_quote, nearest, quoted

WORD_BITS = 23
"""Of a word's hash: so many bits that float32 holds the number exactly."""


@dataclass
class Cells:
    """Cells by column, in the source's order; a gap is an empty one, or NaN.

    ``number``: the number that a cell holds, or None; ``at(row, column)``: where a cell stands, in words; ``where``:
    the setting or argument that named the source, for errors.
    """

    columns: dict[str, list[Any]]
    number: Callable[[Any], float | None]
    at: Callable[[int, str], str]
    where: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def names(self) -> list[str]:
        """The columns, in order."""
        return list(self.columns)

    def has(self, names: Sequence[str], where: str) -> None:
        """MeshError for a column that is not there."""
        for name in names:
            if name not in self.columns:
                raise MeshError(f"no column {name!r}", where=where, instead=nearest(name, self.columns, "columns"))

    def take(self, rows: Sequence[int]) -> Cells:
        """Some rows alone."""
        columns = {name: [cells[row] for row in rows] for name, cells in self.columns.items()}
        return replace(self, columns=columns, at=lambda row, name: self.at(rows[row], name))

    def kinds(self, missing: Collection[str]) -> dict[str, str]:
        """`numbers`, `categories` or `empty` by column: where half of what is there are numbers, all must be."""
        found = {}
        for name, cells in self.columns.items():
            filled = [cell for cell in cells if not gap(cell, missing)]
            count = sum(self.number(cell) is not None for cell in filled)
            found[name] = "empty" if not filled else "numbers" if 2 * count >= len(filled) else "categories"
        return found

    def values(self, names: Sequence[str], missing: Collection[str], instead: str) -> np.ndarray:
        """Numbers ``[N, C]`` float64 of columns, NaN where there is a gap; MeshError for a cell that is no number."""
        found = np.empty((len(self), len(names)))
        for place, name in enumerate(names):
            for row, cell in enumerate(self.columns[name]):
                value = np.nan if gap(cell, missing) else self.number(cell)
                if value is None or np.isinf(value):
                    what = "is not finite" if value is not None else "is not a number"
                    gap_as = json.dumps(str(cell)) if may_quote() else "CELL"
                    gone = f"`missing: [{gap_as}]` where it stands for a gap, or {instead}"
                    self.refuse(row, name, f"{quoted(cell)} {what}", gone if instead else "a finite number")
                found[row, place] = value
        return found

    def words(self, name: str, missing: Collection[str]) -> list[str | None]:
        """The words of a column, None where there is a gap."""
        return [None if gap(cell, missing) else word(cell) for cell in self.columns[name]]

    def shown(self, name: str) -> str:
        """The first cell of a column, in words."""
        cell = self.columns[name][0]
        return "(empty)" if gap(cell) else f"{cell!r:.40}" if isinstance(cell, str) else f"{cell:.6g}"

    def refuse(self, row: int, column: str, what: str, instead: str) -> NoReturn:
        """Raise the MeshError of a cell."""
        raise MeshError(f"{self.at(row, column)}: {what}", where=self.where, instead=instead)

    def known(self, names: Collection[str]) -> Tensor:
        """By what samples are known again, ``[N, C]`` float32: numbers as they are, NaN for a gap, words hashed.

        It depends on a row's cells alone, and of numbers it is what is read without `prepare`.
        """
        hashed: dict[str, float] = {}

        def code(cell: Any) -> float:
            if gap(cell):
                return torch.nan
            value = self.number(cell)
            if value is not None:
                return value
            if (text := str(cell)) not in hashed:
                digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
                hashed[text] = float(digest % 2**WORD_BITS)
            return hashed[text]

        by_column = [[code(cell) for cell in cells] for name, cells in self.columns.items() if name in names]
        return torch.tensor(by_column, dtype=torch.float64).float().T.contiguous()


@dataclass
class Values(Cells):
    """The same of samples that are vectors, ``x [N, F]``, whose columns may have no names."""

    x: np.ndarray

    @classmethod
    def of(cls, x: Tensor, names: Sequence[str], where: str) -> Values:
        """``names``: of the columns, none where they have none."""
        named = names or [f"feature {number}" for number in range(x.shape[1])]
        return cls({name: [] for name in named}, float, lambda row, name: f"sample {row}, {name!r}", where, x.numpy())

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Sequence[int]) -> Values:
        """Some rows alone."""
        return replace(self, x=self.x[rows], at=lambda row, name: self.at(rows[row], name))

    def kinds(self, missing: Collection[str]) -> dict[str, str]:
        """All are numbers."""
        return dict.fromkeys(self.columns, "numbers")

    def values(self, names: Sequence[str], missing: Collection[str], instead: str) -> np.ndarray:
        """Numbers ``[N, C]`` float64 of columns."""
        places = {name: place for place, name in enumerate(self.columns)}
        found = self.x[:, [places[name] for name in names]].astype(np.float64)
        for row, place in np.argwhere(np.isinf(found)).tolist():
            self.refuse(row, names[place], "infinite", "a finite number")
        gaps = np.isin(found, np.array(_numbers(missing), np.float32))  # values are of float32, too
        return np.where(gaps, np.nan, found)

    def words(self, name: str, missing: Collection[str]) -> list[str | None]:
        """Numbers that are names, None where there is a gap."""
        return [None if gap(word(one), missing) else word(one) for one in self._column(name)]

    def shown(self, name: str) -> str:
        """The first value of a column, in words."""
        return f"{self._column(name)[0]:.6g}"

    def known(self, names: Collection[str]) -> Tensor:
        """The samples themselves."""
        return torch.from_numpy(self.x)

    def _column(self, name: str) -> list[float]:
        found: list[float] = self.x[:, list(self.columns).index(name)].tolist()
        return found


def gap(cell: Any, missing: Collection[str] = ()) -> bool:
    """Whether a cell is empty, NaN, or one of the words that stand for a gap."""
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return True
    text = str(cell).strip()
    return text.lower() in ("", "nan") or text in missing


def _numbers(words: Collection[str]) -> list[float]:
    """Those of the words that are numbers."""
    found = []
    for one in words:
        with suppress(ValueError):
            found.append(float(one))
    return found


def word(cell: Any) -> str:
    """A cell as a category: a whole number has no point, whatever file it came from."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
