"""One process at a time works on a run's folder: from the first part to the last file, whatever runs in between."""

from __future__ import annotations

import os
import platform
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from kdmesh.contracts.run_files import LOCK
from kdmesh.errors import MeshError
from kdmesh.files import lock, read_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRIES, PAUSE = 3, 0.01  # seconds


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold a run's folder. MeshError, with who holds it, where another process does, or it cannot be written."""
    path = root / LOCK
    try:
        file = _locked(path)
    except OSError as error:
        raise MeshError(
            f"cannot write the run's folder: {error.strerror}", file=str(root), instead="a folder that is writable"
        ) from None
    if file is None:
        raise MeshError(
            f"another process is using this run's folder: {_holder(path)}",
            file=str(root),
            instead="wait until it ends, or stop it",
        )
    with file:
        with suppress(OSError):  # on a full disk it is held all the same
            file.truncate(0)
            file.write(to_json({"pid": os.getpid(), "machine": platform.node(), "since": time.strftime("%F %T")}))
            file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def _locked(path: Path) -> IO[str] | None:
    """The lock's file, opened and locked; None where another process has it."""
    refused = 0
    while True:
        file = path.open("a", encoding="utf-8")
        if not lock(file):
            file.close()
            refused += 1
            if refused == TRIES:
                return None
            time.sleep(PAUSE)  # somebody may only be looking whether it is held
            continue
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its holder removed it between our two steps


def _holder(path: Path) -> str:
    """Who holds a folder, by what is written in its lock."""
    who = read_json(path) or {}
    return f"process {who.get('pid', '?')} on {who.get('machine', '?')}, since {who.get('since', '?')}"
