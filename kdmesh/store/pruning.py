"""Keeping a store within its limit: entries that were used longest ago go first, and none that is in use."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kdmesh.errors import MeshError
from kdmesh.files import DRAFT, reason, remedy
from kdmesh.store import using
from kdmesh.store.root import SET_ASIDE, SHARDS, Root, size_of
from kdmesh.store.shards import SHARED

USED = "used"
GONE = ".gone-"  # how the name of a folder begins that is being deleted
OVERHEAD = 1024  # bytes of a shard beside its rows, about
SHARE = 16  # of the limit: after writing one part of so many, what others wrote is counted
SLACK = 0.9  # of the limit: what is pruned to, so that not every write prunes


@dataclass(frozen=True)
class Pruned:
    """An entry that went: its digest, and how many bytes it had."""

    digest: str
    size: int


def folders(root: Root) -> Iterator[Path]:
    """The folders of all entries, by digest."""
    for parent in sorted(root.entries.glob("[0-9a-f][0-9a-f]")):
        yield from sorted(one for one in parent.iterdir() if one.name.startswith(parent.name) and one.is_dir())


def make_room(root: Root, size: int) -> bool:
    """Whether so many bytes more may be written; older entries go for it. OSError where the store cannot be read."""
    if root.limit is None:
        return True
    size += OVERHEAD
    if root.held is None or root.held + size > root.limit or root.since > root.limit // SHARE:
        root.held, root.since = size_of(root.path), 0  # other processes write, too
    if root.held + size > root.limit and size <= root.limit:
        try:
            prune(root, max(0, min(int(root.limit * SLACK), root.limit - size)))
        except MeshError as error:
            root.note(f"{error}")
    if root.held + size > root.limit:
        return False
    root.held += size
    root.since += size
    return True


def prune(root: Root, keep: int) -> list[Pruned]:
    """Delete entries until the store has at most so many bytes, and what killed processes left; return what went.

    Entries that a process has open stay. A clock that jumped changes only which go first. MeshError where the file
    system has no locks: nothing is deleted there, since nobody could know who reads.
    """
    gone: list[Pruned] = []
    for left in root.entries.glob(f"*/{GONE}*"):
        shutil.rmtree(left, ignore_errors=True)
    for folder in folders(root):
        _tidy(folder)
    root.held = size_of(root.path)
    for _, folder in sorted((last_used(one), one) for one in folders(root)):
        if root.held <= keep:
            break
        size = size_of(folder)
        if _delete(folder):
            gone.append(Pruned(folder.name, size))
            root.held -= size
    return gone


def last_used(folder: Path) -> float:
    """When an entry was last used, in seconds; now, where a clock that jumped says that it is still to be."""
    for name in (USED, "."):
        with suppress(OSError):
            return min((folder / name).stat().st_mtime, time.time())
    return 0.0


def _tidy(folder: Path) -> None:
    """Delete what killed processes left half written, and what was set aside, of an entry that nobody uses."""
    left = [one for place in (".", SHARDS, SHARED) for one in (folder / place).glob(f".*{DRAFT}")]
    left += (folder / SET_ASIDE).glob("*")
    if left:
        with suppress(ImportError, OSError), using.alone(folder) as mine:
            for one in left if mine else ():
                one.unlink(missing_ok=True)


def _delete(folder: Path) -> bool:
    """Delete an entry that nobody uses; whether it went. Renamed first: it is there whole, or not at all."""
    try:
        with using.alone(folder) as mine:
            if not mine:
                return False
            away = folder.with_name(GONE + secrets.token_hex(8))
            folder.rename(away)
    except FileNotFoundError:
        return False
    except (ImportError, OSError) as error:
        how = remedy(error)
        if how:
            raise MeshError(f"cannot prune: {reason(error)}", file=str(folder), instead=how) from None
        raise MeshError(
            f"cannot prune: whether an entry is in use is not known here ({error})",
            file=str(folder),
            instead="a file system with locks, or delete the store while nobody uses it",
        ) from None
    shutil.rmtree(away, ignore_errors=True)
    return True
