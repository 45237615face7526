"""Files that stay as they are while they are read: of mapped ones a part that is cut off would end the process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Changed(MeshError):
    """A file was written to while it was read."""


class Unchanged:
    """Files as they are now. One that is replaced or removed, and not written to, is still read as it was."""

    def __init__(self, paths: Iterable[Path | str], where: str) -> None:
        """``where``: the setting that names them, for errors."""
        self._where = where
        self._was = {os.fspath(path): found for path in paths if (found := _now(path)) is not None}

    def check(self) -> None:
        """Changed, if one was written to since."""
        for path, was in self._was.items():
            now = _now(path)
            if now is not None and now != was and now[:2] == was[:2]:
                what = f"{path} changed while it was read"
                raise Changed(what, where=self._where, instead="a file that stays as it is until all is done")


def _now(path: Path | str) -> tuple[int, int, int, int] | None:
    """Which file a path leads to, its size and when it was last written to; None if it leads to none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
