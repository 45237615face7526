"""What a run has left behind: processes that carry its mark, or that have one of its temporary files open."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import commands


def temporary(pid: int) -> str:
    """How the paths begin of the temporary folders that a process makes."""
    return str(Path(tempfile.gettempdir()) / f"kdmesh-{pid}-")


def holders(prefix: str) -> dict[int, str]:
    """Pid and title of every other process that has a file open whose path begins so. Some of Ray's give themselves
    titles, and write over their environment and the mark in it; their logs stay open.
    """
    found: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or not ours
            opened = [descriptor for descriptor in (process / "fd").iterdir() if process.name != str(os.getpid())]
            if any(_path(descriptor).startswith(prefix) for descriptor in opened):
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def _path(descriptor: Path) -> str:
    with suppress(OSError):  # closed meanwhile
        return os.readlink(descriptor)
    return ""


def remaining(mark: str) -> list[str]:
    """Processes and temporary folders that are still there of this one, once they have had time to end."""
    deadline = time.monotonic() + commands.PATIENCE
    own = temporary(os.getpid())
    while True:
        left = {**commands.processes(mark), **holders(own)}
        found = [f"{pid} {said}" for pid, said in left.items() if pid != os.getpid()]
        found += [str(path) for path in Path(own).parent.glob(Path(own).name + "*")]
        if not found or time.monotonic() > deadline:
            return found
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.1)
