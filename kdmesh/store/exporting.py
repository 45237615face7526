"""An entry taken elsewhere: a store of its own in another folder, for another machine or another program."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from kdmesh.errors import MeshError
from kdmesh.files import aside, found_at
from kdmesh.store import using
from kdmesh.store.card import CARD
from kdmesh.store.entry import Entry
from kdmesh.store.root import Root


def export(entry: Entry, folder: Path) -> int:
    """Copy an entry into a folder, which is then a store, or one entry richer; return how many rows it has there.

    What is copied was checked as it was opened, and is whole also where another process merges it meanwhile. What a
    killed process has copied is a store, and the same command copies the rest. MeshError for a folder that is none,
    OSError where one cannot be written.
    """
    if (what := found_at(folder)) not in ("folder", "does not exist"):
        raise MeshError("is a file, not a folder" if what == "file" else what, file=str(folder), where="FOLDER",
                        instead="a folder, which may be a store already")  # fmt: skip
    entry.refresh()
    target = Root(folder.absolute()).folder(entry.key.digest)
    target.mkdir(parents=True, exist_ok=True)
    with using.shared(target) or nullcontext():  # nobody deletes it meanwhile
        _copy(target / CARD, lambda draft: shutil.copyfile(entry.folder / CARD, draft))
        for name, one in entry.files().items():
            (target / name).parent.mkdir(exist_ok=True)
            _copy(target / name, one.copy)
    return sum(map(len, entry.shards))


def _copy(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file, unless it is there."""
    if not path.exists():
        with aside(path) as draft:
            write(draft)
