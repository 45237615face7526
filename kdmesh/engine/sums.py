"""What a run has written as its result, file by file with its sum: it has finished while all of that stands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kdmesh.contracts.run_files import SUMS
from kdmesh.errors import MeshError
from kdmesh.files import inside, read, sha256, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FIELD = "sha256"


def keep(root: Path, names: Iterable[str], anew: bool = False) -> None:
    """Read files of a folder back, and write their sums beside those that are known; ``anew``: in place of them.

    OSError where one cannot be read, or the sums not be written.
    """
    known = {} if anew else told(root)
    write_json(root / SUMS, {FIELD: {**known, **{name: sha256(inside(root, name)) for name in names}}})


def told(root: Path) -> dict[str, str]:
    """The sums that a folder has; none where they cannot be read."""
    try:
        return parsed(read(root / SUMS))
    except (OSError, UnicodeDecodeError):
        return {}


def parsed(content: bytes | str) -> dict[str, str]:
    """The sums in a file of them; none where it is damaged."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    sums = found.get(FIELD) if isinstance(found, dict) else None
    return {str(name): str(value) for name, value in sums.items()} if isinstance(sums, dict) else {}


def fault(root: Path, needed: Iterable[str]) -> str:
    """Which file of a folder, or of a part in it, is missing or changed; nothing if all are as they were written.

    ``needed``: the files without which it is not whole.
    """
    sums = told(root)
    if unknown := [name for name in needed if name not in sums]:
        return f"{unknown[0]} is not known to be whole"
    for name, expected in sums.items():
        try:
            if sha256(inside(root, name)) != expected:
                return f"{name} is not what was written"
        except (OSError, MeshError):
            return f"{name} is missing"
        if name.endswith(f"/{SUMS}") and (why := fault(part := inside(root, name).parent, ())):
            return f"{part.relative_to(root)}: {why}"
    return ""
