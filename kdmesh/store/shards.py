"""A shard: some rows of an entry in one file.

It holds ``rows [n, 2]``, the samples' digests as two little-endian numbers each, in rising order; the values' tensors
by name, a row for each, or as many as ``starts [n + 1]`` says; and ``ids [n]`` where samples are known by number. What
all rows share, as the layer that turns hidden rows into logits, is in a file of its own, once for the entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.store import mapped
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.mapped import DTYPES, Mapped, Unreadable, written_as

if TYPE_CHECKING:
    from pathlib import Path

ROWS, STARTS, IDS = "rows", "starts", "ids"
OURS = (ROWS, STARTS, IDS)
WIDTH = 16  # bytes of a row's digest
SHARED, SIGNAL = "shared", "signal"  # what is noted of the shared file, and of what the values are
OPTIONAL = "optional"  # of the latter: names of values that some shards may not have, where they are zeros


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
) -> str:
    """Write rows, which are sorted, into a folder; return the file's name. OSError where that fails.

    ``anew``: also where there is a file of that name.
    """
    tensors = {name: one.cpu() for name, one in values.items()}
    tensors[ROWS] = torch.from_numpy(np.ascontiguousarray(rows).view("<i8"))
    tensors |= {name: one.cpu().long() for name, one in ((STARTS, starts), (IDS, ids)) if one is not None}
    return mapped.write(folder, tensors, about, anew)


def words(parts: Mapping[str, tuple[torch.dtype, list[int]]], many: bool, about: Mapping[str, Any]) -> str:
    """What the values of a shard are: ``values F32 [10]``. Those of one entry are all alike in it."""
    signal = about.get(SIGNAL) or {}
    may_miss = signal.get(OPTIONAL, ())
    said = [
        f"{name} {written_as(dtype)} {shape}" for name, (dtype, shape) in sorted(parts.items()) if name not in may_miss
    ]
    said += [
        f"{name} {json.dumps(signal[name], sort_keys=True)}"
        for name in sorted(signal)
        if name != OPTIONAL and signal[name]
    ]
    said += ["many rows a sample"] if many else []
    return ", ".join([*said, *([f"{about[SHARED]['is']} ({about[SHARED]['file'][:8]})"] if SHARED in about else [])])


class Shard(Mapped):
    """An open shard.

    Attributes:
        fingerprint: on what it was computed.
        round: of a history; None of anything else.
        rows: digests ``[n, 2]`` uint64.
        ids: the samples' numbers ``[n]`` int64, where they were told.
        starts: where each sample's rows begin, ``[n + 1]`` int64; None where each has one.
    """

    def __init__(self, path: Path, entry: str) -> None:
        """Map a file and check it. Unreadable, Newer, or OSError."""
        super().__init__(path)
        try:
            self._read(entry)
        except (AttributeError, KeyError, TypeError, ValueError, MeshError) as error:
            raise Unreadable(f"it is no shard: {error}") from None

    def _read(self, entry: str) -> None:
        if self.about["entry"] != entry:
            raise ValueError("it is of another entry")
        self.fingerprint = Fingerprint.of(self.about["fingerprint"])
        self.round: int | None = self.about.get("round")
        if self.round is not None and type(self.round) is not int:
            raise ValueError("its round is no number")
        _refuse_odd(self.about.get(SIGNAL), self.about.get(SHARED))
        self.rows = self.parts.pop(ROWS)[0].view("<u8")
        self.ids = self._numbers(IDS)
        self.starts = self._numbers(STARTS)
        if self.rows.shape[1] != 2 or (self.starts is not None and len(self.starts) != len(self.rows) + 1):
            raise ValueError("rows and starts do not belong together")
        length = len(self) if self.starts is None else int(self.starts[-1])
        if self.starts is not None and (self.starts[0] != 0 or (np.diff(self.starts) < 0).any()):
            raise ValueError("starts do not rise from 0")
        if unlike := [name for name, (data, *_) in self.parts.items() if len(data) != length]:
            raise ValueError(f"{unlike[0]} has not {length} rows")

    def _numbers(self, name: str) -> np.ndarray | None:
        return self.parts.pop(name)[0].view("<i8")[:, 0] if name in self.parts else None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def layout(self) -> str:
        """What its values are, in :func:`words`."""
        parts = {name: (dtype, shape) for name, (_, dtype, shape) in self.parts.items()}
        return words(parts, self.starts is not None, self.about)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where digests (:func:`numbers`) stand in it, ``[n]`` int64; -1 where they do not."""
        if not len(self) or not len(rows):
            return np.full(len(rows), -1)
        found = np.minimum(np.searchsorted(self.rows[:, 0], rows[:, 0]), len(self) - 1)
        first, second = self.rows[found, 0] == rows[:, 0], self.rows[found, 1] == rows[:, 1]
        same = first & second
        for one in np.flatnonzero(first & ~second):  # alike in their first half
            at = found[one]
            while at < len(self) and self.rows[at, 0] == rows[one, 0] and not same[one]:
                found[one], same[one] = at, self.rows[at, 1] == rows[one, 1]
                at += 1
        return np.where(same, found, -1)


def _refuse_odd(signal: Any, shared: Any) -> None:
    """ValueError for what is noted otherwise than it is written: a store may come from anywhere."""
    if shared is not None and not all(isinstance(shared[name], str) for name in ("file", "is")):
        raise ValueError("what its rows share has no name")
    if signal is None:
        return
    if not all(isinstance(signal[name], str) for name in ("kind", "form")):
        raise ValueError("its signal is of no kind or form")
    if unknown := sorted({*signal["types"].values()} - {*DTYPES}):
        raise ValueError(f"its values were of type {unknown[0]}")
    if not isinstance(signal.get(OPTIONAL, []), list):
        raise ValueError("its optional values have no names")


def hexadecimal(shard: Shard, at: int) -> str:
    """The digest of the sample at a place, 32 hexadecimal digits."""
    return bytes(shard.rows[at].tobytes()).hex()


def matching(shard: Shard, sample: str) -> list[int]:
    """Where a sample stands by its number in the stream, or, of at least 8 digits, by how its digest begins."""
    if sample.isdecimal() and shard.ids is not None and (found := np.flatnonzero(shard.ids == int(sample))).size:
        return [int(one) for one in found]
    if len(sample) < 8 or any(one not in "0123456789abcdef" for one in sample):
        return []
    return [at for at in range(len(shard)) if hexadecimal(shard, at).startswith(sample)]
