"""Rows of values: which tensors belong together, taken in parts to be written, and put together of several shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kdmesh.store.mapped import written_as
from kdmesh.store.shards import OURS, Shard
from kdmesh.streams.tokens import ranges


def check(n: int, values: Mapping[str, Tensor], starts: Tensor | None, ids: Tensor | None) -> None:
    """ValueError for tensors that are not of ``n`` samples, or that a shard cannot hold."""
    if not values or (reserved := sorted(set(values) & {*OURS, "__metadata__"})):
        raise ValueError(f"values cannot be named {reserved[0]!r}" if values else "there are no values")
    if ids is not None and ids.shape != (n,):
        raise ValueError(f"ids are [{n}], not {list(ids.shape)}")
    if starts is not None and (
        starts.shape != (n + 1,) or int(starts[0]) != 0 or bool((starts[1:] < starts[:-1]).any())
    ):
        raise ValueError(f"starts rise from 0 and are [{n + 1}]")
    length = n if starts is None else int(starts[-1])
    for name, one in values.items():
        if not one.dim() or len(one) != length:
            raise ValueError(f"{name} is {list(one.shape)}, where there are {length} rows")
        written_as(one.dtype)


def chunks(keep: np.ndarray, values: Mapping[str, Tensor], starts: Tensor | None, most: int) -> Iterator[np.ndarray]:
    """Positions of samples in parts of about so many bytes, each of one sample at least."""
    wide = sum(one[0].numel() * one.element_size() if len(one) else 0 for one in values.values())
    counts = np.ones(len(keep), np.int64) if starts is None else _counts(starts)[keep]
    ends = (counts * wide).cumsum()
    begin = 0
    while begin < len(keep):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + most, "right")))
        yield keep[begin:end]
        begin = end


def taken(
    chunk: np.ndarray, values: Mapping[str, Tensor], starts: Tensor | None
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The values of samples at some positions, and where each one's rows begin."""
    at = torch.from_numpy(chunk)
    if starts is None:
        return {name: one[at.to(one.device)] for name, one in values.items()}, None
    begins, counts = starts.cpu()[at], torch.from_numpy(_counts(starts)[chunk])
    rows = ranges(begins, counts)
    return {name: one[rows.to(one.device)] for name, one in values.items()}, _ends(counts)


def joined(shards: Sequence[Shard], of: np.ndarray, places: np.ndarray) -> tuple[dict[str, Tensor], Tensor | None]:
    """Values of rows that stand in several shards, all of one layout: ``of [n]`` numbers a shard, ``places [n]`` a row.

    What is made is the answer alone: of the shards no more than these rows is read.
    """
    parts = [(shards[number], np.flatnonzero(of == number)) for number in np.unique(of)]
    starts = None
    if any(one.starts is not None for one in shards):
        counts = np.zeros(len(of), np.int64)
        for one, at in parts:
            counts[at] = _many(one)[places[at] + 1] - _many(one)[places[at]]
        starts = _ends(torch.from_numpy(counts))
        begins = starts.numpy()
        rows = np.zeros(begins[-1], np.int64)
        wide = []
        for one, at in parts:
            into = _ranges(begins[at], counts[at])
            rows[into] = _ranges(_many(one)[places[at]], counts[at])
            wide.append((one, into))
        parts, places = wide, rows
    names = sorted({name for one, _ in parts for name in one.parts})
    return {name: _values(name, parts, places) for name in names}, starts


def none(like: Shard) -> tuple[dict[str, Tensor], Tensor | None]:
    """No rows, of the layout of a shard."""
    starts = None if like.starts is None else torch.zeros(1, dtype=torch.int64)
    return {name: like.empty(name, 0) for name in sorted(like.parts)}, starts


def _values(name: str, parts: Sequence[tuple[Shard, np.ndarray]], places: np.ndarray) -> Tensor:
    """Of the shards that have it; zeros are the rows of those that do not."""
    if len(parts) == 1:
        return parts[0][0].take(name, places)
    out = next(one for one, _ in parts if name in one.parts).empty(name, len(places))
    for one, into in parts:
        if name in one.parts:
            out.index_copy_(0, torch.from_numpy(into), one.take(name, places[into]))
        else:
            out.index_fill_(0, torch.from_numpy(into), 0)
    return out


def _many(one: Shard) -> np.ndarray:
    assert one.starts is not None
    return one.starts


def _counts(starts: Tensor) -> np.ndarray:
    return np.diff(starts.cpu().numpy())


def _ends(counts: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])


def _ranges(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return ranges(torch.from_numpy(np.ascontiguousarray(begins)), torch.from_numpy(counts)).numpy()
