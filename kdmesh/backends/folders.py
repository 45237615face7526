"""Where the embedded Ray keeps its sockets and logs: a folder of its own with a short path, closed to other users."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress

from kdmesh.backends.processes import new_folder
from kdmesh.errors import RunFailed

SOCKET = 107 if sys.platform == "linux" else 103  # bytes that the system takes as the path of a socket
INSIDE = "/kdmesh-{pid}-12345678/r/session_2000-01-01_00-00-00_000000_{pid}/sockets/plasma_store"  # its longest
NEEDED = 64 * 2**20  # free bytes: the logs of a long run. Objects are in shared memory
USUAL = ("/tmp", "/var/tmp", "/dev/shm")  # where the folders that the environment names are not fit


def new_folder_for_ray() -> str:
    """Make a folder that only this user can enter. Ray's own is to be its `r`: Ray opens that one to everybody.

    It is made where RAY_TMPDIR or TMPDIR says, or in a usual place where their paths are too long for sockets, or where
    the disk is full. Raises RunFailed, with what is wrong with each place and what to set, where none is fit.
    """
    refused: dict[str, str] = {}
    for parent in dict.fromkeys(os.path.abspath(one) for one in (*_named(), *USUAL)):
        try:
            refused[parent] = _unfit(parent)
            if not refused[parent]:
                folder = new_folder(parent)
                os.mkdir(inner(folder))
                return folder
        except OSError as error:
            refused[parent] = (error.strerror or str(error)).lower()
    raise RunFailed(
        "no folder is fit for Ray's sockets and logs: " + "; ".join(f"{one}: {why}" for one, why in refused.items()),
        where="TMPDIR",
        instead=f"TMPDIR=/a/folder that you can write to, of at most {longest()} characters, with {NEEDED >> 20} MB "
        "free; or --backend inline",
    )


def inner(outer: str) -> str:
    """The folder inside it that Ray is given."""
    return os.path.join(outer, "r")


def longest() -> int:
    """The most bytes that the path of the parent folder may have."""
    return SOCKET - len(INSIDE.format(pid=os.getpid()))


def _named() -> list[str]:
    """What the environment names, Ray's own variable first."""
    found = [os.environ.get("RAY_TMPDIR", "")]
    with suppress(OSError):  # nothing can be written anywhere
        found.append(tempfile.gettempdir())
    return [one for one in found if one]


def _unfit(parent: str) -> str:
    """Why a folder cannot be the parent; empty if it can, as far as this is known without trying."""
    if (size := len(os.fsencode(parent))) > longest():
        return f"its path has {size} characters, and sockets in it leave room for {longest()}"
    free = shutil.disk_usage(parent).free
    return f"{free / 2**20:.1f} MB free, and {NEEDED >> 20} are needed" if free < NEEDED else ""
