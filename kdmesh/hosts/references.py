"""Frozen weights in a run's folder: where they were read from, by path and sha256, in place of a copy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.files import REFERENCE, read, sha256, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence


def refer(root: Path, home: Path, files: Sequence[Path]) -> None:
    """Write into ``root`` which files an agent's weights are; ``home``: the folder that this will be."""
    records = [{"path": os.path.relpath(file.resolve(), home.resolve()), "sha256": sha256(file)} for file in files]
    write_json(root / REFERENCE, {"kdmesh": 1, "files": records})


def follow(root: Path, home: Path | None = None) -> list[Path]:
    """The files that a folder refers to, none where it holds its weights. MeshError where they are no longer those."""
    if not (root / REFERENCE).is_file():
        return []
    records = json.loads(read(root / REFERENCE, most=1 << 24))["files"]
    found = []
    for record in records:
        file = Path(os.path.normpath((home or root).resolve() / record["path"]))
        if not file.is_file() or sha256(file) != record["sha256"]:
            raise MeshError(
                f"this agent's weights are in {file}, which {'has changed' if file.is_file() else 'is not there'}",
                file=str(root),
                where=REFERENCE,
                instead="put it back as it was, or run again with `saved: copy` on this agent",
            )
        found.append(file)
    if not found:
        raise MeshError(
            "it refers to no file", file=str(root), where=REFERENCE, instead="a complete copy of the folder"
        )
    return found
