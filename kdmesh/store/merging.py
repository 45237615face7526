"""Many small shards made one: what is found is the same, and each look at an entry is as quick as before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kdmesh.store import shards
from kdmesh.store.gather import joined
from kdmesh.store.shards import Shard

if TYPE_CHECKING:
    from pathlib import Path

MANY = 32
"""So many small shards become one."""


def chosen(every: Sequence[Shard], like: Shard, most: int) -> list[Shard]:
    """The small shards that can become one of at most about ``most`` bytes, the smallest first; none if they are few.

    They are of one fingerprint and round. A quarter of ``most`` is not small.
    """
    alike = [one for one in every if one.size < most // 4 and _kind(one) == _kind(like)]
    alike.sort(key=lambda one: (one.size, one.name))
    sizes = np.cumsum([one.size for one in alike])
    few = alike[: int(np.searchsorted(sizes, most, "right"))]
    return few if len(few) >= MANY else []


def merge(parts: Sequence[Shard], folder: Path) -> str:
    """Write the rows of several shards as one; return its name. OSError where that fails: then nothing has changed."""
    every = np.concatenate([one.rows for one in parts])
    of = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
    places = np.concatenate([np.arange(len(one)) for one in parts])
    _, first = np.unique(every, axis=0, return_index=True)
    values, starts = joined(parts, of[first], places[first])
    ids = None
    if parts[0].ids is not None:
        ids = torch.from_numpy(np.concatenate([one.ids for one in parts if one.ids is not None])[first])
    return shards.write(folder, every[first], values, starts, ids, _about(parts))


def _kind(one: Shard) -> tuple[Any, ...]:
    return one.fingerprint, one.round, one.layout, one.ids is None, *sorted(one.about)


def _about(parts: Sequence[Shard]) -> dict[str, Any]:
    """What is noted of them together: numbers are averaged by rows, and of errors the largest counts."""
    first, weights = parts[0].about, [len(one) for one in parts]
    noted = {name: _together([one.about[name] for one in parts], weights) for name in first if name != "format"}
    return {**noted, **{name: first[name] for name in ("entry", "fingerprint", "round") if name in first}}


def _together(told: Sequence[Any], weights: Sequence[int]) -> Any:
    if isinstance(told[0], float):
        return float(np.average(told, weights=weights))
    if isinstance(told[0], Mapping) and all(isinstance(one, float) for each in told for one in each.values()):
        return {name: max(each[name] for each in told if name in each) for name in {*told[0]}.union(*told)}
    return told[0]
