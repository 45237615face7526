"""How much memory this machine has."""

from __future__ import annotations

import os

UNKNOWN = 2**35  # bytes that are taken to be there where the system does not tell


def memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN
