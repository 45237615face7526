"""An entry taken elsewhere: a store of its own in another folder, for another machine or another program."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from kdmesh.errors import MeshError
from kdmesh.files import aside, found_at
from kdmesh.store.card import CARD
from kdmesh.store.entry import Entry
from kdmesh.store.root import SHARDS, Root
from kdmesh.store.shards import SHARED


def export(entry: Entry, folder: Path) -> int:
    """Copy an entry into a folder, which is then a store, or one entry richer; return how many rows it has there.

    Only whole shards are copied: their bytes are checked first. MeshError for a folder that is none, OSError where one
    cannot be written.
    """
    if (what := found_at(folder)) not in ("folder", "does not exist"):
        raise MeshError("is a file, not a folder" if what == "file" else what, file=str(folder), where="FOLDER",
                        instead="a folder, which may be a store already")  # fmt: skip
    entry.refresh()
    target = Root(folder.absolute()).folder(entry.key.digest)
    for path in (*_needed(entry), entry.folder / CARD):
        at = target / path.relative_to(entry.folder)
        at.parent.mkdir(parents=True, exist_ok=True)
        if not at.exists():
            with aside(at) as draft:
                shutil.copyfile(path, draft)
    return sum(map(len, entry.shards))


def _needed(entry: Entry) -> Iterator[Path]:
    """Shared parts before the shards that need them: a copy that is cut short has no row that cannot be read."""
    yield from {entry.folder / SHARED / one.about[SHARED]["file"] for one in entry.shards if SHARED in one.about}
    yield from (entry.folder / SHARDS / one.name for one in entry.shards)
