"""Who uses an entry: a lock that readers and writers share, and that whoever deletes must have alone."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = "lock"


def shared(folder: Path) -> IO[Any] | None:
    """Say that this process uses an entry, until what is returned is closed or the process dies.

    None where the folder is gone, or its file system, or system, knows no locks: then nothing is deleted there either.
    """
    try:
        import fcntl
    except ImportError:  # Windows, which deletes nothing that is mapped
        return None
    while True:
        try:
            file = _opened(folder / LOCK)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        except OSError:
            file.close()
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK)):
                return file
        file.close()  # deleted between our two steps
        if not folder.is_dir():
            return None


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether nobody else uses an entry, and nobody will begin to within the block. OSError where that is not known."""
    import fcntl

    with _opened(folder / LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK))


def _opened(path: Path) -> IO[Any]:
    """The lock's file, made where it can be: in a folder that nobody may write into it may be there already."""
    try:
        return path.open("ab")
    except PermissionError:
        return path.open("rb")
    except OSError as error:
        if error.errno is None or not path.exists():
            raise
        return path.open("rb")  # a read-only disk, or a full one
