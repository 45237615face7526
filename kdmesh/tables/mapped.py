"""Arrays in files that the system maps: what is asked for is read, and memory holds what it has room for."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.streams.checks import finite, samples
from kdmesh.streams.unread import Unread
from kdmesh.tables.unchanged import Unchanged

TORCH = {
    "BF16": ("<u2", torch.bfloat16),
    "F8_E4M3": ("u1", torch.float8_e4m3fn),
    "F8_E5M2": ("u1", torch.float8_e5m2),
}
"""Types of safetensors that numpy does not have: as which of its own they are read, and what they are then."""
SAFETENSORS = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8",
    "U64": "<u8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """Where an array stands in a file: numpy's name of its ``kind``, its first byte and its shape, rows after rows.

    ``seen``: the type of torch's that its bits are, where numpy has none.
    """

    file: Path
    kind: str
    begin: int
    shape: tuple[int, ...]
    seen: torch.dtype | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, as float32."""
        return 4 * math.prod(self.shape)

    def open(self) -> np.ndarray[Any, Any]:
        """The array, mapped. OSError or ValueError where the file is not what it was."""
        mapped: Any = np.memmap(self.file, np.dtype(self.kind), "r", self.begin, self.shape)
        return np.asarray(mapped)  # which indexes faster than its own class

    def tensor(self, values: np.ndarray[Any, Any]) -> Tensor:
        """Values of it as a tensor of their own type: the same ones, where their bytes are in this machine's order."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what is only to be read, and nobody writes to it
            found = torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))
        return found if self.seen is None else found.view(self.seen)


class Mapped(Unread):
    """Rows of an array, as float32. ``name``: what it is called in errors, ``where``: the setting that named it.

    ``axes``: the shape of a sample, where the file has it otherwise; ``by``: what values are divided by.
    """

    def __init__(
        self, stored: Stored, name: str, where: str, axes: tuple[int, ...] | None = None, by: float = 1.0
    ) -> None:
        samples(torch.Size(stored.shape), stored.kind, name, where)
        super().__init__([stored.shape[0], *(stored.shape[1:] if axes is None else axes)])
        self._stored, self._name, self._where, self._by = stored, name, where, by
        self._unchanged = Unchanged([stored.file], where)
        floating = stored.seen is not None or np.dtype(stored.kind).kind == "f"
        self._unseen = _Unseen(stored.shape[0]) if floating else None

    @cached_property
    def _values(self) -> Tensor | np.ndarray[Any, Any]:
        """The array ``[N, values]``, rows of one axis being copied fastest; of numpy, where bytes are to be swapped."""
        try:
            values = self._stored.open().reshape(len(self._stored), -1)
        except (OSError, ValueError) as error:
            raise MeshError(f"{self._name}: {error}", where=self._where, instead="the file as it was") from None
        return self._stored.tensor(values) if values.dtype.isnative else values

    def read(self, rows: Tensor) -> Tensor:
        """Copy rows out of the file; one with a value that is not finite is refused."""
        self._unchanged.check()
        values = self._values
        own = values.index_select(0, rows) if isinstance(values, Tensor) else self._stored.tensor(values[rows.numpy()])
        x = own.float()
        if self._unseen is not None and self._unseen.any(rows):
            finite(x, self._name, self._where, rows)
            self._unseen.seen(rows)
        if self._by != 1:
            x.div_(self._by)
        return x if len(self.shape) == 2 else x.view(len(rows), *self.shape[1:])

    def __getstate__(self) -> dict[str, Any]:
        """Without the file: another process maps it for itself, and looks at its values for itself."""
        own = {name: value for name, value in vars(self).items() if name != "_values"}
        return own | ({} if self._unseen is None else {"_unseen": _Unseen(self._stored.shape[0])})


class _Unseen:
    """Rows whose values nobody has looked at yet; all selections of an array share it.

    The first pass of `check` sees all of them, so that no batch is looked at again.
    """

    def __init__(self, count: int) -> None:
        self._left, self._count = count, count
        self._rows: Tensor | None = None  # which, [count] bool; None: all

    def any(self, rows: Tensor) -> bool:
        """Whether some are among these."""
        return self._left > 0 and (self._rows is None or bool(self._rows[rows].any()))

    def seen(self, rows: Tensor) -> None:
        """They have been looked at."""
        self._rows = torch.ones(self._count, dtype=torch.bool) if self._rows is None else self._rows
        own = rows.unique()
        self._left -= int(self._rows[own].sum())
        self._rows[own] = False


def npy(file: Path) -> Stored:
    """Where the array of a .npy file stands. ValueError, TypeError or OSError for what is none, or holds objects."""
    found = np.load(file, mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.memmap):
        raise ValueError("no array that numpy.save wrote")
    if found.ndim > 1 and not found.flags.c_contiguous:
        raise ValueError("its rows do not follow each other: it is in Fortran's order")
    return Stored(file, found.dtype.str, found.offset, found.shape)


def safetensors(file: Path) -> dict[str, Stored]:
    """Where the arrays of a .safetensors file stand. SafetensorError, OSError or ValueError for what is none."""
    from safetensors import safe_open

    with safe_open(file, framework="np"):
        pass  # every field of its header is checked
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    found = {}
    for name, told in header.items():
        if name == "__metadata__":
            continue
        kind, seen = TORCH.get(told["dtype"], (SAFETENSORS.get(told["dtype"], ""), None))
        if not kind:
            raise ValueError(f"array {name!r} is of type {told['dtype']}, which is not read")
        found[name] = Stored(file, kind, 8 + size + told["data_offsets"][0], tuple(told["shape"]), seen)
    return found
