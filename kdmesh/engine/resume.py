"""Going on with a run: the mesh it was, and the refusal of anything that is no longer what it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kdmesh.engine.folder import manifest
from kdmesh.errors import MeshError
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kdmesh.engine.check import Checked
    from kdmesh.engine.folder import Folder
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec

SHOWN = 8  # differences that are written out


def interrupted(root: Path) -> MeshSpec:
    """The mesh of a run's folder, as it was resolved. MeshError for what is no such folder, or a finished run."""
    if (root / "summary.json").exists():
        raise MeshError("this run has finished", file=str(root), instead="kdmesh run, for another one")
    return parse(asked(root)["mesh"])


def asked(root: Path) -> dict[str, Any]:
    """What the run's manifest says."""
    try:
        found: dict[str, Any] = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        if "mesh" not in found:
            raise ValueError("its manifest tells of no mesh")
    except (OSError, ValueError) as error:
        raise MeshError(f"this is no run's folder: {error}", file=str(root), instead="runs/<name>/<time>") from None
    return found


def refuse_changes(folder: Folder, plan: Plan, checked: Checked) -> None:
    """MeshError, with what differs, if the mesh's file, its data or a teacher's weights are not what they were."""
    before, now = asked(folder.root), manifest(plan, checked)
    changed = [
        f"{part}.{path}: was {old!r}, is {new!r}"
        for part in ("mesh", "data", "teachers")
        for path, old, new in differences(before[part], json.loads(json.dumps(now[part], default=str)))
    ]
    given = folder.root / "resolved.yaml"
    if not changed and given.exists():
        written = parse(load(given.read_text(encoding="utf-8")))
        was = differences(before["mesh"], written.model_dump(mode="json", by_alias=True, exclude_none=True))
        changed = [f"resolved.yaml: {path}: was {old!r}, is {new!r}" for path, old, new in was]
    if changed:
        more = [f"and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
        raise MeshError(
            "what this run was made of has changed:\n    " + "\n    ".join([*changed[:SHOWN], *more]),
            file=str(folder.root),
            instead="put it back as it was, or begin a new run",
        )


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place in which two JSON values differ: its path, and both sides (None: absent)."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{path}.{number}")
    elif before != now:
        yield path, before, now
