"""What a run's folder holds beyond the term that its mesh declares, `keep`, and how that goes.

Terms count from when the run was begun. Of what has a sum the sum goes too, and ``expired.jsonl`` says what went.
"""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kdmesh.contracts.run_files import (
    ANSWERS,
    CHECKPOINTS,
    ENDPOINTS,
    EXPIRED,
    LOG,
    MANIFEST,
    PERSONAL,
    RESULTS,
    STREAMS,
    SUMS,
)
from kdmesh.engine import sums
from kdmesh.engine.forgetting.reached import parts_of
from kdmesh.files import read, read_json, to_json, write
from kdmesh.report.folders import begun
from kdmesh.spec.retention import END, RetentionSpec

if TYPE_CHECKING:
    from pathlib import Path

DAY = 24 * 3600
FILES = {
    "checkpoints": (CHECKPOINTS,), "events": (LOG,), "texts": (STREAMS, ENDPOINTS), "answers": (ANSWERS,),
    "personal": (PERSONAL,),
}  # fmt: skip
"""What each term is of, in the folder of every part of a run."""


def due(root: Path, mesh: dict[str, Any], now: float | None = None) -> dict[Path, str]:
    """Of a finished run what is past its term, with the term in words; ``mesh``: as its manifest has it."""
    try:
        terms = RetentionSpec.model_validate(mesh.get("keep") or {}).terms()
    except ValidationError:  # of an edited manifest: nothing is deleted by what nobody can read
        return {}
    if not terms or not (root / RESULTS).is_file():
        return {}
    age = (time.time() if now is None else now) - begun(root)
    found: dict[Path, str] = {}
    for name, days in terms.items():
        if age >= days * DAY:
            said = "kept no longer than the run" if not days else f"past its term of {days} days"
            every = (part / file for part in parts_of(root) for file in FILES[name])
            found |= {path: f"{said} (keep.{name})" for path in every if path.exists() and not path.is_symlink()}
    return found


def expire(root: Path, mesh: dict[str, Any], now: float | None = None) -> list[str]:
    """Delete what is past its term; the caller holds the folder. Returns what went. OSError where that fails."""
    gone = due(root, mesh, now)
    for path in gone:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    names = [path.relative_to(root).as_posix() for path in gone]
    if gone:
        path = root / EXPIRED
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "expired": names}
        write(path, f"{read(path) if path.exists() else ''}{to_json(line)}\n")
        _mend(root)
    return names


def _mend(root: Path) -> None:
    """Take the sums of what went out of those that are kept, from the innermost part to the whole."""
    mended: set[Path] = set()
    for part in sorted(parts_of(root), key=lambda one: -len(one.parts)):
        known = sums.told(part)
        left = {name: one for name, one in known.items() if name != ANSWERS or (part / name).exists()}
        again = [name for name in left if part / name in mended]
        if left != known or again or (part == root and known):
            write(part / SUMS, to_json({sums.FIELD: left}, 2) + "\n")
            sums.keep(part, again + ([EXPIRED] if part == root else []))
            mended.add(part / SUMS)


def at_end(root: Path) -> list[str]:
    """Delete what a run that has just finished is to keep no longer; what went."""
    manifest = read_json(root / MANIFEST) or {}
    mesh = manifest.get("mesh")
    if not isinstance(mesh, dict) or not isinstance(mesh.get("keep"), dict):
        return []
    only = {name: term for name, term in mesh["keep"].items() if term == END}
    return expire(root, {"keep": only}) if only else []


def told(root: Path) -> list[dict[str, Any]]:
    """What went, a line for each time."""
    try:
        found = [json.loads(line) for line in read(root / EXPIRED).splitlines()]
    except (OSError, ValueError, RecursionError):
        return []
    return [one for one in found if isinstance(one, dict)]
