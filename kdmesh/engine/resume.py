"""Going on with a run: the mesh it was, and the refusal of anything that is no longer what it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.engine.collect import RESULTS, complete
from kdmesh.engine.folder import manifest
from kdmesh.errors import MeshError
from kdmesh.spec.read import parse
from kdmesh.spec.train import AUTO
from kdmesh.spec.yaml12 import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.engine.check import Checked
    from kdmesh.engine.folder import Folder
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec

SHOWN = 8  # differences that are written out


def interrupted(root: Path) -> MeshSpec:
    """The mesh of a run's folder, as it was resolved.

    MeshError for what is no such folder, for a part of a run, which goes on with the whole, or a finished run.
    """
    known = asked(root)
    refuse_part(root)
    if finished(root, known["begun"]):
        raise MeshError("this run has finished", file=str(root), instead="kdmesh run, for another one")
    return parse(known["mesh"])


def refuse_part(root: Path) -> None:
    """MeshError for the folder of a seed or a control, where the run that it belongs to is there."""
    within = begun(root).get("within")
    if within is not None and begun(whole := Path(os.path.normpath(root / within))):
        raise MeshError(f"this is a part of the run {whole}", file=str(root), instead=f"resume {whole}")


def finished(root: Path, how: dict[str, Any]) -> bool:
    """Whether everything that was asked for stands in a run's folder; ``how`` it was begun.

    A run of a version without a table of results has finished with its summary.
    """
    if "seeds" not in how:
        return read_json(root / "summary.json") is not None
    return complete(read_json(root / RESULTS))


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None where there is none that is whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def asked(root: Path) -> dict[str, Any]:
    """What the run's manifest says."""
    try:
        found: dict[str, Any] = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        if "mesh" not in found:
            raise ValueError("its manifest tells of no mesh")
    except (OSError, ValueError) as error:
        raise MeshError(f"this is no run's folder: {error}", file=str(root), instead="runs/<name>/<time>") from None
    return found


def begun(root: Path) -> dict[str, Any]:
    """How a run was begun, by its manifest; nothing where there is none yet."""
    return (read_json(root / "manifest.json") or {}).get("begun") or {}


def as_begun(spec: MeshSpec, root: Path) -> MeshSpec:
    """A mesh with what a run settled when it was begun, where the mesh leaves it open: hosts and threads.

    What is measured again may come out otherwise.
    """
    before = parse(asked(root)["mesh"])
    agents = {
        name: agent.model_copy(
            update={"train": agent.train.model_copy(update={"threads": before.agents[name].train.threads})}
        )
        if agent.train.threads == AUTO and name in before.agents
        else agent
        for name, agent in spec.agents.items()
    }
    open_ = {"placement": before.placement} if spec.placement == "auto" else {}
    threads = before.train.threads if spec.train.threads == AUTO else spec.train.threads
    train = spec.train.model_copy(update={"threads": threads})
    return spec.model_copy(update={"agents": agents, "train": train, **open_})


def refuse_changes(folder: Folder, plan: Plan, checked: Checked, within: Path | None = None) -> None:
    """MeshError, with what differs, if the mesh's file, its data or a teacher's weights are not what they were.

    ``within``: of a part of a run, the folder of the whole, which may have been moved with all that is in it.
    """
    before, now = asked(folder.root), manifest(plan, checked)
    if within is not None and "whole" in before["begun"]:
        before = _moved(before, before["begun"]["whole"], str(within.resolve()))
    changed = [
        f"{part}.{path}: was {old!r}, is {new!r}"
        for part in ("mesh", "data", "teachers")
        for path, old, new in differences(before[part], json.loads(json.dumps(now[part], default=str)))
    ]
    given = folder.root / "resolved.yaml"
    if not changed and given.exists():
        written = parse(load(given.read_text(encoding="utf-8")))
        was = differences(asked(folder.root)["mesh"], written.model_dump(mode="json", by_alias=True, exclude_none=True))
        changed = [f"resolved.yaml: {path}: was {old!r}, is {new!r}" for path, old, new in was]
    if changed:
        more = [f"and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
        raise MeshError(
            "what this run was made of has changed:\n    " + "\n    ".join([*changed[:SHOWN], *more]),
            file=str(folder.root),
            instead="put it back as it was, or begin a new run",
        )


def _moved(value: Any, old: str, new: str) -> Any:
    """A JSON value with every path that was in one folder put into another."""
    if isinstance(value, dict):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, old, new) for item in value]
    return new + value[len(old) :] if isinstance(value, str) and value.startswith(f"{old}{os.sep}") else value


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
