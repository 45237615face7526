"""A store: entries in a folder, found by their keys."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdmesh.errors import LISTED, MeshError
from kdmesh.files import found_at
from kdmesh.store.card import CARD, Damaged, read_card
from kdmesh.store.entry import Entry
from kdmesh.store.exporting import export
from kdmesh.store.key import EntryKey
from kdmesh.store.mapped import SUFFIX, peek
from kdmesh.store.pruning import Pruned, folders, last_used, prune
from kdmesh.store.root import SHARDS, Root, size_of
from kdmesh.store.shards import ROWS
from kdmesh.store.verify import Fault, verify

PLACE = "KDMESH_STORE"  # the environment's variable: a folder, a URL, or OFF
OFF = "off"
LIMIT_BYTES = 20 * 2**30
"""How large a store may become where nothing else is said."""


def default_root() -> str | Path | None:
    """Where the store is unless a command says: ``$KDMESH_STORE``, else in the user's cache folder; None: nowhere."""
    if named := os.environ.get(PLACE):
        return None if named == OFF else named
    cache = os.environ.get("XDG_CACHE_HOME") or ""
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "kdmesh" / "store"


@dataclass(frozen=True)
class EntryInfo:
    """What a list of entries says of one.

    Attributes:
        digest: of its key; the name of its folder.
        key: None where the card that says it is damaged: ``fault`` says how.
        info: what was noted beside the key, as who asked for it first.
        shards: how many there are; ``size``: bytes of all its files.
        rows: how many samples it answers for, as the shards' headers say; one that stands in several counts as often.
        used: when it was last used, in seconds since the epoch, to the hour.
    """

    digest: str
    key: EntryKey | None
    info: Mapping[str, Any]
    shards: int
    size: int
    used: float
    rows: int
    fault: str = ""


class Store:
    """Entries in a folder. Nothing is created before the first write."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._entries: dict[str, Entry] = {}

    @classmethod
    def open(cls, where: str | Path, *, limit_bytes: int | None = LIMIT_BYTES) -> Store:
        """The store in a folder. MeshError where that cannot be one.

        ``limit_bytes``: what it may hold, shared with every process that uses it: writing deletes what was used longest
        ago; None: no limit.
        """
        if limit_bytes is not None and limit_bytes < 1:
            raise MeshError(f"{limit_bytes} is no limit of bytes", where="store", instead="a positive number, or None")
        path = Path(where)
        what = found_at(where)
        if what != "folder" and (what == "file" or path.exists() or what.startswith("is no path")):
            said = "is a file" if what == "file" else what
            raise MeshError(f"{said}, not a folder", file=str(where), where="store", instead="the folder of a store")
        return cls(Root(path.absolute(), limit_bytes))

    def entry(self, key: EntryKey, info: Mapping[str, Any] | None = None) -> Entry:
        """The entry of a key, which may have no rows yet. ``info``: to be noted beside the key by its first writer."""
        if key.digest not in self._entries:
            self._entries[key.digest] = Entry(self._root, key, info)
        return self._entries[key.digest]

    def entries(self) -> Iterator[EntryInfo]:
        """What is in the store, by digest; entries without a shard are not told."""
        for folder in folders(self._root):
            paths = sorted((folder / SHARDS).glob(f"[!.]*{SUFFIX}"))
            if not paths:
                continue
            key: EntryKey | None = None
            info: dict[str, Any] = {}
            fault = ""
            try:
                key, info = read_card(folder)
            except Damaged as error:
                fault = str(error)
            except OSError as error:
                fault = f"{CARD} cannot be read: {error.strerror}"
            rows = sum(map(_rows, paths))
            yield EntryInfo(folder.name, key, info, len(paths), size_of(folder), last_used(folder), rows, fault)

    def find(self, name: str) -> EntryInfo:
        """The entry whose digest begins with some digits. MeshError where there is none, or more than one."""
        every = [*self.entries()]
        found = [one for one in every if name and one.digest.startswith(name.lower())]
        if len(found) != 1:
            listed = ", ".join(one.digest[:12] for one in (found or every)[:LISTED])
            what = f"{len(found)} entries begin with {name!r}" if found else f"no entry begins with {name!r}"
            instead = f"one of {listed}" if listed else "a store with entries: this one has none"
            raise MeshError(what, file=str(self.path), where="KEY", instead=instead)
        return found[0]

    def prune(self, keep_bytes: int) -> list[Pruned]:
        """Delete entries, those used longest ago first, until at most so many bytes are left; return what went.

        What this process or another has open stays. See :func:`kdmesh.store.pruning.prune`.
        """
        return prune(self._root, keep_bytes)

    def export(self, key: EntryKey, folder: Path) -> int:
        """Copy an entry into another folder; see :func:`kdmesh.store.exporting.export`."""
        return export(self.entry(key), folder)

    def verify(self) -> Iterator[Fault]:
        """Read everything back, and tell what is wrong; see :func:`kdmesh.store.verify.verify`."""
        return verify(self._root)

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._root.path

    @property
    def notes(self) -> list[str]:
        """What was noticed so far, in words: what is damaged, of another version, or could not be written."""
        return list(self._root.notes)

    def close(self) -> None:
        """Say that this process uses none of its entries any longer."""
        for one in self._entries.values():
            one.close()
        self._entries.clear()


def _rows(path: Path) -> int:
    try:
        return int(peek(path)[ROWS][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return 0  # damaged: verify() tells
