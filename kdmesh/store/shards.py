"""A shard: some rows of an entry in one safetensors file, whose name is the sha256 of its bytes.

It holds ``rows [n, 2]``, the samples' digests as two little-endian numbers each, in rising order; the values' tensors
by name, a row for each, or as many as ``starts [n + 1]`` says; and ``ids [n]`` where samples are known by number. A
file is mapped, never read whole: what is taken of it is copied row by row.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.files import aside
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.key import canonical

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
SUFFIX = ".safetensors"
ROWS, STARTS, IDS = "rows", "starts", "ids"
ABOUT = "kdmesh"  # the field of a file's header that says what it is, as JSON
OURS = (ROWS, STARTS, IDS)
WIDTH = 16  # bytes of a row's digest
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_HEADER = 8  # bytes that say how long the header is


def written_as(dtype: torch.dtype) -> str:
    """The name of a type of numbers in a file. ValueError for one that shards do not hold."""
    for name, one in _DTYPES.items():
        if one is dtype:
            return name
    raise ValueError(f"the store holds no {dtype}")


class Unreadable(Exception):
    """A shard that is not what was written; the message says how."""


class Newer(Exception):
    """A shard of a later version's format, which is left as it is."""


def numbers(rows: Tensor) -> np.ndarray:
    """Digests ``[n, 16]`` uint8 as two numbers each, ``[n, 2]`` uint64: what shards are sorted and searched by."""
    if rows.dtype != torch.uint8 or rows.dim() != 2 or rows.shape[1] != WIDTH:
        raise ValueError(f"digests of rows are [n, {WIDTH}] uint8, not {list(rows.shape)} {rows.dtype}")
    return np.ascontiguousarray(rows.detach().cpu().numpy()).view("<u8")


def write(
    folder: Path,
    rows: np.ndarray,
    values: Mapping[str, Tensor],
    starts: Tensor | None,
    ids: Tensor | None,
    about: Mapping[str, Any],
    anew: bool = False,
) -> tuple[str, int]:
    """Write rows, which are sorted, into a folder; return the file's name and bytes. OSError where that fails.

    ``anew``: also where there is a file of that name.
    """
    from safetensors.torch import save

    tensors = {name: one.detach().cpu().contiguous() for name, one in values.items()}
    tensors[ROWS] = torch.from_numpy(np.ascontiguousarray(rows).view("<i8"))
    for name, extra in ((STARTS, starts), (IDS, ids)):
        if extra is not None:
            tensors[name] = extra.detach().cpu().long().contiguous()
    # One field of the header alone: several come in no order, and the same rows shall be the same bytes.
    content = save(tensors, {ABOUT: canonical({**about, "format": FORMAT}).decode()})
    name = hashlib.sha256(content).hexdigest() + SUFFIX
    path = folder / name
    if anew or not path.exists():
        with aside(path) as draft:
            draft.write_bytes(content)
    return name, len(content)


class Shard:
    """An open shard. It stays mapped, and readable, also after its file is deleted.

    Attributes:
        name: of its file.
        size: of its file, in bytes.
        about: what is written in it: entry, fingerprint, round, shared, error.
        fingerprint: on what it was computed.
        round: of a history; None of anything else.
    """

    def __init__(self, path: Path, entry: str) -> None:
        """Map a file and check it. Unreadable, Newer, or OSError."""
        self.name, self.size = path.name, path.stat().st_size
        if self.size <= _HEADER:
            raise Unreadable(f"holds {self.size} bytes")
        try:
            self._bytes = torch.from_file(str(path), shared=False, size=self.size, dtype=torch.uint8).numpy()
        except RuntimeError as error:  # the file became shorter, or there is no room in the table of maps
            raise OSError(str(error).splitlines()[0]) from None
        self._bytes.flags.writeable = False
        if hashlib.sha256(self._bytes.data).hexdigest() + SUFFIX != self.name:
            raise Unreadable("its bytes are not those that were written")
        try:
            self._parse(entry)
        except (KeyError, TypeError, ValueError, RecursionError, MeshError) as error:
            raise Unreadable(f"is no shard: {error}") from None

    def _parse(self, entry: str) -> None:
        end = _HEADER + int(self._bytes[:_HEADER].view("<u8")[0])
        header: dict[str, Any] = json.loads(bytes(self._bytes[_HEADER:end]))
        self.about: dict[str, Any] = json.loads(header.pop("__metadata__")[ABOUT])
        if self.about["format"] > FORMAT:
            raise Newer(f"format {self.about['format']}")
        if self.about["entry"] != entry:
            raise ValueError("it is of another entry")
        self.fingerprint = Fingerprint.of(self.about["fingerprint"])
        self.round: int | None = self.about.get("round")
        self._parts: dict[str, tuple[np.ndarray, torch.dtype, list[int]]] = {}
        for name, one in header.items():
            first, last = one["data_offsets"]
            dtype, shape = _DTYPES[one["dtype"]], one["shape"]
            wide = math.prod(shape[1:]) * dtype.itemsize
            data = self._bytes[end + first : end + last]
            if not shape or len(data) != shape[0] * wide:
                raise ValueError(f"{name} has the wrong length")
            self._parts[name] = (data.reshape(shape[0], wide), dtype, shape[1:])
        self.rows = self._parts.pop(ROWS)[0].view("<u8")
        self.ids = self._numbers(IDS)
        self.starts = self._numbers(STARTS)
        if self.rows.shape[1] != 2 or (self.starts is not None and len(self.starts) != len(self.rows) + 1):
            raise ValueError("rows and starts do not belong together")
        length = len(self) if self.starts is None else int(self.starts[-1])
        if self.starts is not None and (self.starts[0] != 0 or (np.diff(self.starts) < 0).any()):
            raise ValueError("starts do not rise from 0")
        if unlike := [name for name, (data, *_) in self._parts.items() if len(data) != length]:
            raise ValueError(f"{unlike[0]} has not {length} rows")

    def _numbers(self, name: str) -> np.ndarray | None:
        return self._parts.pop(name)[0].view("<i8")[:, 0] if name in self._parts else None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of its values."""
        return frozenset(self._parts)

    @cached_property
    def layout(self) -> str:
        """What its values are, as :func:`kdmesh.store.gather.layout` says it."""
        parts = [f"{name} {written_as(dtype)} {shape}" for name, (_, dtype, shape) in sorted(self._parts.items())]
        return ", ".join([*parts, *([] if self.starts is None else ["many rows a sample"])])

    def empty(self, name: str, count: int) -> Tensor:
        """Room for so many rows of one of its values."""
        _, dtype, shape = self._parts[name]
        return torch.empty((count, *shape), dtype=dtype)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where digests (:func:`numbers`) stand in it, ``[n]`` int64; -1 where they do not."""
        if not len(self) or not len(rows):
            return np.full(len(rows), -1)
        found = np.minimum(np.searchsorted(self.rows[:, 0], rows[:, 0]), len(self) - 1)
        same = (self.rows[found] == rows).all(1)
        for one in np.flatnonzero(~same & (self.rows[found, 0] == rows[:, 0])):  # alike in their first half
            at = found[one]
            while at < len(self) and self.rows[at, 0] == rows[one, 0] and not same[one]:
                found[one], same[one] = at, self.rows[at, 1] == rows[one, 1]
                at += 1
        return np.where(same, found, -1)

    def take(self, name: str, places: np.ndarray) -> Tensor:
        """Rows of one of its values, copied."""
        data, out = self._parts[name][0], self.empty(name, len(places))
        if out.numel():
            wide = np.dtype((np.void, data.shape[1]))
            into = out.view(len(places), -1).view(torch.uint8).numpy().reshape(-1).view(wide)
            np.take(data.reshape(-1).view(wide), places, out=into, mode="clip")
        return out
