"""No process stays behind: what the embedded Ray started is known by a mark in its environment, and swept at the end.

Ray ends its own processes, but one that was just starting when its parent died can outlive it by a minute.
"""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "KDMESH_EMBEDDED_RAY"


def new_mark() -> str:
    """A mark that no other process has."""
    return secrets.token_hex(16)


@contextmanager
def marked(mark: str) -> Iterator[None]:
    """Processes started inside carry the mark, and pass it on to those they start."""
    os.environ[MARK] = mark
    try:
        yield
    finally:
        os.environ.pop(MARK, None)


def sweep(mark: str) -> list[int]:
    """Kill what still carries the mark, and return the pids; nothing where there is no /proc."""
    entry = f"{MARK}={mark}".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or not ours
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
                found.append(int(folder.name))
    return found
