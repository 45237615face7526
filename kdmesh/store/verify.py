"""Reading a whole store back: which of its files are not what was written, or do not belong where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch

from kdmesh.files import DRAFT, reason
from kdmesh.store.card import CARD, Damaged, read_card
from kdmesh.store.gather import joined
from kdmesh.store.mapped import SUFFIX, Mapped, Newer, Unreadable
from kdmesh.store.pruning import GONE, USED, folders
from kdmesh.store.root import SET_ASIDE, SHARDS, Root
from kdmesh.store.shards import SHARED, Shard
from kdmesh.store.using import LOCK

File = TypeVar("File", bound=Mapped)
HALF = "left half written by a process that was killed: harmless, and removed when the store is pruned"
OURS = frozenset({CARD, USED, LOCK, SHARDS, SHARED, SET_ASIDE})


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file.

    Attributes:
        path: of the file, from the store's folder.
        what: is wrong with it.
        harmless: whether nothing is lost by it, and nobody reads it.
    """

    path: str
    what: str
    harmless: bool = False


def verify(root: Root) -> Iterator[Fault]:
    """Read every file of a store and tell what is wrong, in the order of paths. Nothing is changed.

    Found are: any byte that is not as it was written; shards of another entry; shards whose shared part is missing;
    rows that were answered twice, on the same fingerprint, with unlike values; files of a newer version; and what does
    not belong there.
    """
    for folder in folders(root):
        for fault in _entry(folder):
            yield Fault((folder.relative_to(root.path) / fault.path).as_posix(), fault.what, fault.harmless)
    for left in sorted(root.entries.glob(f"*/{GONE}*")):
        yield Fault(left.relative_to(root.path).as_posix(), "left half deleted by a process that was killed", True)


def _entry(folder: Path) -> Iterator[Fault]:
    names = {one.name for one in folder.iterdir()}
    try:
        read_card(folder)
    except (Damaged, OSError) as error:
        if (SHARDS in names and any((folder / SHARDS).iterdir())) or not isinstance(error, FileNotFoundError):
            yield Fault(CARD, "is missing" if isinstance(error, FileNotFoundError) else _why(error))
    for name in sorted(names - OURS):
        half = name.endswith(DRAFT)
        yield Fault(name, HALF if half else "does not belong into a store", half)
    shared, kept = (
        _Folder(folder, SHARED, lambda path: Mapped(path)),
        _Folder(folder, SHARDS, lambda path: Shard(path, folder.name)),
    )
    yield from shared.faults()
    yield from kept.faults()
    for name, one in kept.whole.items():
        if SHARED in one.about and one.about[SHARED]["file"] not in shared.whole:
            yield Fault(f"{SHARDS}/{name}", "what its rows share is missing or damaged")
    yield from _twice(kept.whole)
    if SET_ASIDE in names:
        for path in sorted((folder / SET_ASIDE).iterdir()):
            yield Fault(f"{SET_ASIDE}/{path.name}", "was found damaged before, and set aside; nobody reads it", True)


class _Folder(Generic[File]):
    """The files in a folder of an entry: those that are whole, once :meth:`faults` has told of all others."""

    def __init__(self, entry: Path, name: str, opened: Callable[[Path], File]) -> None:
        self.whole: dict[str, File] = {}
        self._entry, self._name, self._opened = entry, name, opened

    def faults(self) -> Iterator[Fault]:
        """What is wrong with each file that is not whole."""
        folder = self._entry / self._name
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            at = f"{self._name}/{path.name}"
            if path.name.endswith(DRAFT):
                yield Fault(at, HALF, True)
            elif not path.name.endswith(SUFFIX):
                yield Fault(at, "does not belong into a store")
            else:
                try:
                    self.whole[path.name] = self._opened(path)
                except Newer as error:
                    yield Fault(at, f"a newer version of kdmesh wrote it ({error}): this one does not read it")
                except (Unreadable, OSError) as error:
                    yield Fault(at, _why(error))


def _twice(shards: dict[str, Shard]) -> Iterator[Fault]:
    """Rows that stand in several shards of one fingerprint and round, and are not the same there."""
    alike: dict[object, list[Shard]] = {}
    for one in shards.values():
        alike.setdefault((one.fingerprint, one.round, one.layout), []).append(one)
    for group in alike.values():
        rows, counts = np.unique(np.concatenate([one.rows for one in group]), axis=0, return_counts=True)
        again = rows[counts > 1]
        for number, one in enumerate(group[1:], 1):
            for before in group[:number]:
                here, there = one.places(again), before.places(again)
                both = (here >= 0) & (there >= 0)
                if both.any() and not _same(one, here[both], before, there[both]):
                    what = f"answers some samples otherwise than {before.name[:12]}, on the same fingerprint"
                    yield Fault(f"{SHARDS}/{one.name}", what)


def _same(one: Shard, here: np.ndarray, other: Shard, there: np.ndarray) -> bool:
    """Whether rows of two shards have the same bits."""
    (a, begins), (b, others) = (
        joined([shard], np.zeros(len(at), int), at) for shard, at in ((one, here), (other, there))
    )
    if begins is not None and others is not None and not begins.equal(others):
        return False
    return all(
        a[name].flatten().view(torch.uint8).equal(b[name].flatten().view(torch.uint8)) for name in a.keys() & b.keys()
    )


def _why(error: Exception) -> str:
    return reason(error) if isinstance(error, OSError) else str(error)
