"""Rows of a store that are of some samples: found in all entries, and taken out of them.

A shard that holds such rows is written once more without them before it goes, so that a kill in between leaves rows
twice and none half. To do it again does no more.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from kdmesh.errors import MeshError
from kdmesh.files import reason, remedy
from kdmesh.store import gather, shards
from kdmesh.store.card import Damaged, read_card
from kdmesh.store.mapped import SUFFIX, Newer, Unreadable
from kdmesh.store.pruning import folders
from kdmesh.store.root import SET_ASIDE, SHARDS
from kdmesh.store.shards import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kdmesh.store.root import Root

MESH, AGENT = "mesh", "agent"  # of what is noted beside an entry's key


@dataclass(frozen=True)
class Samples:
    """Which rows are meant.

    ``digests``: of samples as models are given them, 16 bytes each: their rows are meant in every entry. Views of them
    have other digests, and written texts those of whole batches: in entries that agents of ``mesh`` asked for first
    also rows of these ``numbers`` are meant, and, where no numbers stand with rows, all.
    """

    digests: frozenset[bytes]
    mesh: str
    agents: frozenset[str]
    numbers: frozenset[int]


@dataclass(frozen=True)
class Held:
    """An entry, by its digest, that has ``rows`` of the samples. ``whole``: nobody can say which rows, so all count.

    ``why``: it cannot be read in whole, so that nobody knows.
    """

    digest: str
    agent: str
    rows: int
    whole: bool = False
    why: str = ""


def held(root: Root, samples: Samples) -> Iterator[Held]:
    """The entries that have rows of some samples, by digest."""
    for folder in folders(root):
        info = _info(folder)
        ours = _ours(info, samples)
        rows, whole, why = 0, False, ""
        for path in _paths(folder):
            try:
                shard = Shard(path, folder.name)
            except (Unreadable, Newer, OSError) as error:
                why = f"{path.name[:12]} cannot be read: {error}"
                continue
            rows += int(_meant(shard, samples, ours).sum())
            whole |= ours and shard.ids is None
        if rows or (ours and (why or any((folder / SET_ASIDE).glob("*")))):
            yield Held(folder.name, info.get(AGENT, ""), rows, whole, why)


def take_out(root: Root, samples: Samples) -> int:
    """Take all such rows out; how many there were. MeshError where the disk says no: then some may be gone."""
    gone = 0
    for one in list(held(root, samples)):
        folder = root.folder(one.digest)
        ours = _ours(_info(folder), samples)
        try:
            for path in _paths(folder):
                gone += _without(path, folder, samples, ours)
            if ours:  # what is damaged is read by nobody, and may be of anyone
                shutil.rmtree(folder / SET_ASIDE, ignore_errors=True)
        except OSError as error:
            instead = f"{remedy(error) or 'make it writable'}, and the same command again"
            raise MeshError(f"cannot be changed: {reason(error)}", file=str(folder), instead=instead) from None
    return gone


def _without(path: Path, folder: Path, samples: Samples, ours: bool) -> int:
    """Write a shard once more without rows that are meant, and delete it; how many these were."""
    try:
        shard = Shard(path, folder.name)
    except Newer:
        return 0
    except Unreadable:
        if ours:
            path.unlink(missing_ok=True)
        return 0
    meant = _meant(shard, samples, ours)
    if not meant.any():
        return 0
    rest = np.flatnonzero(~meant)
    if len(rest):
        values, starts = gather.joined([shard], np.zeros(len(rest), np.int64), rest)
        ids = None if shard.ids is None else torch.from_numpy(np.array(shard.ids[rest]))
        about = {name: value for name, value in shard.about.items() if name != "format"}
        shards.write(folder / SHARDS, shard.rows[rest], values, starts, ids, about)
    path.unlink(missing_ok=True)
    return int(meant.sum())


def _meant(shard: Shard, samples: Samples, ours: bool) -> np.ndarray:
    """Which rows of a shard are meant ``[n]`` bool."""
    raw = shard.rows.tobytes()
    found = np.array([raw[at : at + shards.WIDTH] in samples.digests for at in range(0, len(raw), shards.WIDTH)], bool)
    if not ours:
        return found
    if shard.ids is None:
        return np.ones(len(shard), bool)
    return found | np.isin(shard.ids, np.array(sorted(samples.numbers), np.int64))


def _ours(info: dict[str, str], samples: Samples) -> bool:
    return info.get(MESH) == samples.mesh and (info.get(AGENT) in samples.agents or not info.get(AGENT))


def _info(folder: Path) -> dict[str, str]:
    try:
        return {name: value for name, value in read_card(folder)[1].items() if isinstance(value, str)}
    except (Damaged, OSError):
        return {}


def _paths(folder: Path) -> list[Path]:
    return sorted((folder / SHARDS).glob(f"[!.]*{SUFFIX}"))
