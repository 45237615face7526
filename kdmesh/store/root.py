"""The folder of a store: where entries are, what has been noticed, and how many bytes it may hold."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kdmesh.files import reason, remedy

VERSION = "v1"  # the folder of this layout; another version's stands beside it
SHARDS, SET_ASIDE = "shards", "set-aside"  # folders of an entry
FULL = "the store is full"


@dataclass
class Root:
    """One store as one process uses it.

    Attributes:
        path: of the folder.
        limit: bytes that the store may hold; None: any number.
        notes: what was noticed, once each, in the order in which it was.
        fault: why nothing more is written; empty while all is well.
        held: bytes in the store, as far as this process has counted; None before it has.
        since: bytes that it has written since it counted.
    """

    path: Path
    limit: int | None = None
    notes: list[str] = field(default_factory=list)
    fault: str = ""
    held: int | None = None
    since: int = 0

    @property
    def entries(self) -> Path:
        """The folder of this version's entries."""
        return self.path / VERSION

    def folder(self, digest: str) -> Path:
        """An entry's folder."""
        return self.entries / digest[:2] / digest

    def note(self, text: str) -> None:
        """Notice something; the same is noticed once."""
        if text not in self.notes:
            self.notes.append(text)

    def failed(self, error: OSError) -> None:
        """Write nothing more after an error of the system, and notice why: what is computed is just not kept."""
        self.fault = reason(error)
        how = remedy(error)
        self.note(f"the store cannot be written, so nothing more is kept: {self.fault}{f'; {how}' if how else ''}")


def size_of(folder: Path) -> int:
    """The bytes of the files below a folder; what goes away meanwhile counts nothing."""
    total = 0
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for one in found:
                    if one.is_dir(follow_symlinks=False):
                        waiting.append(one.path)
                    else:
                        total += one.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
