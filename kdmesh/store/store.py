"""A store: entries in a folder, found by their keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdmesh.errors import LISTED, MeshError
from kdmesh.files import found_at
from kdmesh.store import known
from kdmesh.store.card import CARD, Damaged, parsed, read_card
from kdmesh.store.entry import Entry
from kdmesh.store.exporting import export
from kdmesh.store.key import EntryKey
from kdmesh.store.mapped import SUFFIX, peek
from kdmesh.store.pruning import Pruned, folders, last_used, prune
from kdmesh.store.remote import ACCESS, Remote, Unreachable, is_url
from kdmesh.store.root import SHARDS, VERSION, Root, size_of
from kdmesh.store.shards import ROWS, SHARED
from kdmesh.store.verify import Fault, verify

PLACE = "KDMESH_STORE"  # the environment's variable: a folder, a URL, or OFF
OFF = "off"
LIMIT = "KDMESH_STORE_LIMIT"  # the environment's variable: an amount of bytes, or NO_LIMIT
NO_LIMIT = "none"
LIMIT_BYTES = 20 * 2**30
"""How large a store may become where nothing else is said."""
UNITS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}


def default_root() -> str | Path | None:
    """Where the store is unless a command says: ``$KDMESH_STORE``, else in the user's cache folder; None: nowhere."""
    if named := os.environ.get(PLACE):
        return None if named == OFF else named
    cache = _cache()
    return None if cache is None else cache / "store"


def default_limit() -> int | None:
    """How many bytes a store may hold unless a caller says: ``$KDMESH_STORE_LIMIT``, else :data:`LIMIT_BYTES`.

    None: any number. MeshError for what is no amount.
    """
    told = os.environ.get(LIMIT)
    if not told:
        return LIMIT_BYTES
    found = None if told == NO_LIMIT else amount(told)
    if told != NO_LIMIT and not found:
        raise MeshError(f"{told!r} is no amount of bytes", where=LIMIT, instead=f"500M, 20G, 1T, or {NO_LIMIT}")
    return found


def amount(text: str) -> int | None:
    """An amount of bytes that a person wrote, ``500M`` or ``20G``, in powers of 1000; None for what is none."""
    found = re.fullmatch(r"(\d{1,15})([kMGT]?)B?", text.strip())
    return None if found is None else int(found[1]) * 1000 ** UNITS[found[2]]


def _cache() -> Path | None:
    """The user's cache folder, that of kdmesh; None for a user without a home, as in some containers."""
    cache = os.environ.get("XDG_CACHE_HOME") or ""
    folder = cache if os.path.isabs(cache) else os.path.expanduser("~/.cache")
    return Path(folder) / "kdmesh" if os.path.isabs(folder) else None


@dataclass(frozen=True)
class EntryInfo:
    """What a list of entries says of one.

    Attributes:
        digest: of its key; the name of its folder.
        key: None where the card that says it is damaged: ``fault`` says how.
        info: what was noted beside the key, as who asked for it first.
        shards: how many there are; ``size``: bytes of all its files.
        rows: how many samples it answers for, as the shards' headers say; one that stands in several counts as often.
        used: when it was last used, in seconds since the epoch, to the hour; None where that is not known, at a URL.
    """

    digest: str
    key: EntryKey | None
    info: Mapping[str, Any]
    shards: int
    size: int
    used: float | None
    rows: int
    fault: str = ""


class Store:
    """Entries in a folder. Nothing is created before the first write."""

    def __init__(self, root: Root, remote: Remote | None = None) -> None:
        self._root, self._remote = root, remote
        self._entries: dict[str, Entry] = {}

    @classmethod
    def open(cls, where: str | Path, *, limit_bytes: int | None = LIMIT_BYTES) -> Store:
        """The store in a folder, or at a URL of a file system that fsspec knows. MeshError where that cannot be one.

        Of a URL the files that are asked for are brought into the user's cache folder, and new ones sent there as well.
        ``limit_bytes``: what it may hold, shared with every process that uses it: writing deletes what was used longest
        ago; None: no limit.
        """
        if limit_bytes is not None and limit_bytes < 1:
            raise MeshError(f"{limit_bytes} is no limit of bytes", where="store", instead="a positive number, or None")
        if is_url(where):
            remote, cache = Remote(str(where)), _cache()
            if cache is None:
                raise MeshError("there is no cache folder for the files of this store", where="store", file=remote.url,
                                instead="a folder in XDG_CACHE_HOME")  # fmt: skip
            return cls(Root(cache / "remote" / remote.key, limit_bytes), remote)
        path = Path(os.path.expanduser(where))
        what = found_at(path if str(where) else "")
        if what != "folder" and (what == "file" or path.exists() or what.startswith("is no path")):
            said = "is a file" if what == "file" else what
            raise MeshError(f"{said}, not a folder", file=str(where), where="store", instead="the folder of a store")
        return cls(Root(path.absolute(), limit_bytes))

    def entry(self, key: EntryKey, info: Mapping[str, Any] | None = None) -> Entry:
        """The entry of a key, which may have no rows yet. ``info``: to be noted beside the key by its first writer."""
        if key.digest not in self._entries:
            self._entries[key.digest] = Entry(self._root, key, info, self._remote)
        elif info:
            self._entries[key.digest].info = dict(info)
        return self._entries[key.digest]

    def entries(self) -> Iterator[EntryInfo]:
        """What is in the store, by digest; entries without a shard are not told."""
        if self._remote is not None:
            yield from _entries_at(self._remote)
            return
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
            raise MeshError(what, file=self.place, where="KEY", instead=instead)
        return found[0]

    def recall(self, sign: str) -> dict[str, str] | None:
        """What was noted of a model by the sum of all that it is made from; see :mod:`kdmesh.store.known`."""
        return known.recall(self._root, sign)

    def remember(self, sign: str, told: dict[str, str]) -> None:
        """Note what a model is found by."""
        known.remember(self._root, sign, told)

    def prune(self, keep_bytes: int) -> list[Pruned]:
        """Delete entries, those used longest ago first, until at most so many bytes are left; return what went.

        What this process or another has open stays. See :func:`kdmesh.store.pruning.prune`. MeshError for a URL.
        """
        if self._remote is not None:
            raise MeshError("what stands at a URL is not deleted from here: nobody knows who reads it", where="store",
                            file=self._remote.url, instead="the tools of that place, or rules of its own")  # fmt: skip
        return prune(self._root, keep_bytes)

    def export(self, key: EntryKey, folder: Path) -> int:
        """Copy an entry into another folder; see :func:`kdmesh.store.exporting.export`."""
        return export(self.entry(key), folder)

    def verify(self) -> Iterator[Fault]:
        """Read everything back, and tell what is wrong; see :func:`kdmesh.store.verify.verify`."""
        if self._remote is not None:
            try:
                for name in self._remote.damaged():
                    yield Fault(f"{self._remote.url}/{VERSION}/{name}", "its bytes are not those that were written")
            except Unreachable as why:
                yield Fault(self._remote.url, f"cannot be read: {why}")
        yield from verify(self._root)

    @property
    def path(self) -> Path:
        """Its folder; of a URL the one here in which its files are."""
        return self._root.path

    @property
    def root(self) -> Root:
        """Its folder, for what looks through all entries at once."""
        return self._root

    @property
    def place(self) -> str:
        """Its folder, or its URL."""
        return str(self._root.path) if self._remote is None else self._remote.url

    @property
    def exists(self) -> bool:
        """Whether there is one yet; of a URL that is not asked."""
        return self._remote is not None or self._root.path.is_dir()

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


def _entries_at(remote: Remote) -> Iterator[EntryInfo]:
    """What is at a URL. MeshError where it cannot be read."""
    try:
        by_entry: dict[str, dict[str, int]] = {}
        for name, size in remote.names().items():
            by_entry.setdefault(name.rpartition("/")[0].removesuffix(f"/{SHARDS}").removesuffix(f"/{SHARED}"), {})[
                name
            ] = size
        for at, sizes in sorted(by_entry.items()):
            shards = [name for name in sizes if f"/{SHARDS}/" in name]
            digest = at.rpartition("/")[2]
            key: EntryKey | None = None
            info: dict[str, Any] = {}
            fault = f"{CARD} is missing"
            if f"{at}/{CARD}" in sizes:
                try:
                    (key, info), fault = parsed(remote.read(f"{at}/{CARD}"), digest), ""
                except Damaged as error:
                    fault = str(error)
            if shards:
                rows = sum(map(remote.rows, shards))
                yield EntryInfo(digest, key, info, len(shards), sum(sizes.values()), None, rows, fault)
    except Unreachable as why:
        raise MeshError(f"cannot be read: {why}", file=remote.url, where="store", instead=ACCESS) from None
