"""How much memory this machine has."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SHARE = 8  # of this machine's memory: what takes more than one part in so many is read when it is asked for
UNKNOWN = 2**35  # bytes that are taken to be there where the system does not tell


def memory() -> int:
    """Bytes of this machine's memory, or of the part of it that this container may use."""
    found = UNKNOWN
    with suppress(AttributeError, ValueError, OSError):  # no such file, or `max`
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found


def is_large(size: int) -> bool:
    """Whether samples that would take so many bytes of memory are better read when a batch asks for them."""
    return size > memory() // SHARE
