"""Nothing stays behind: what the embedded Ray started is known by a mark in its environment, and swept at the end.

Ray ends its own processes, but one that was just starting when its parent died can outlive it by a minute, and its
folder of temporary files stays. A driver that is killed sweeps nothing: a guard, which sees its end of a pipe close,
does it then. This file is the guard's program.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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


def sweep(mark: str, folder: str | None = None, spared: tuple[int, ...] = ()) -> list[int]:
    """Kill what still carries the mark, or is of Ray and has a file of the folder open; return the pids.

    A process that gives itself a title writes over its environment, and the mark with it; its log stays open. Without
    a /proc nothing is found.
    """
    entry = f"{MARK}={mark}".encode()
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or not ours
            ours = entry in (process / "environ").read_bytes().split(b"\0")
            pid = int(process.name)
            if pid not in spared and (ours or (folder is not None and _inside(process, folder))):
                os.kill(pid, signal.SIGKILL)
                found.append(pid)
    return found


def _inside(process: Path, folder: str) -> bool:
    """Whether a process of Ray has a file of this folder open."""
    if b"ray" not in (process / "cmdline").read_bytes():
        return False
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):
            if os.readlink(descriptor).startswith(folder + os.sep):
                return True
    return False


def new_folder(parent: str | None = None) -> str:
    """A folder for temporary files that only this user can enter; by default where the system keeps such."""
    return tempfile.mkdtemp(prefix=f"kdmesh-{os.getpid()}-", dir=parent)


def guard(mark: str, folder: str) -> subprocess.Popen[bytes]:
    """Start a process that sweeps once this one has ended, however it did; closing its stdin ends it too."""
    return subprocess.Popen(
        [sys.executable, "-S", __file__, mark, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


if __name__ == "__main__":
    spared = os.getpid(), os.getppid()
    sys.stdin.read()
    while sweep(sys.argv[1], sys.argv[2], spared):  # what was being started meanwhile comes into sight later
        time.sleep(0.2)
    shutil.rmtree(sys.argv[2], ignore_errors=True)
