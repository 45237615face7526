"""Going on with a run: the mesh it was, and the refusal of anything that is no longer what it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import (
    FORGOTTEN,
    GIVEN,
    INTENT,
    MANIFEST,
    RESOLVED,
    RESULTS,
    SHEET,
    SUMMARY,
    refuse_newer,
)
from kdmesh.engine.collect import complete
from kdmesh.engine.folder import made_of, manifest
from kdmesh.engine.inputs import code
from kdmesh.engine.sums import fault
from kdmesh.errors import MeshError
from kdmesh.files import found_at, link_outside, read, read_json, sha256, to_json
from kdmesh.spec.read import parse
from kdmesh.spec.train import AUTO
from kdmesh.spec.yaml12 import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.checks.checked import Checked
    from kdmesh.engine.folder import Folder
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec

PARTS = ("mesh", "data", "teachers", "begun")  # what a run's manifest has
BEGUN = {"backend": str, "strict_signals": bool, "beside": list}
MAYBE = {
    "seeds": int, "controls": bool, "tested": bool, "collect": str, "within": str, "whole": str, "store": str,
}  # fmt: skip
SAME = ("mesh", "data", "teachers", "inputs", "code", "plugins", "writers")  # what a run that goes on has as it was
SHOWN = 8  # differences that are written out


def interrupted(root: Path) -> MeshSpec:
    """The mesh of a run's folder, as it was resolved.

    MeshError for what is no such folder, for a part of a run, which goes on with the whole, or a finished run.
    """
    known = asked(root)
    refuse_part(root)
    seeds = known["begun"].get("seeds", 1)
    if seeds < 1:
        raise MeshError(f"its manifest asks for {seeds!r} seeds", file=str(root), instead="put it back as it was")
    refuse_finished(root)
    return parse(known["mesh"])


def refuse_part(root: Path) -> None:
    """MeshError for the folder of a seed or a control, where the run that it belongs to is there."""
    within = begun(root).get("within")
    if within is not None and begun(whole := Path(os.path.normpath(root / within))):
        raise MeshError(f"this is a part of the run {whole}", file=str(root), instead=f"resume {whole}")


def refuse_finished(root: Path) -> None:
    """MeshError for a run that has nothing left to do. It counts from the lock on: until then another may finish it."""
    if finished(root, asked(root)["begun"]):
        raise MeshError(
            "this run has finished",
            file=str(root),
            instead="kdmesh resume DIR --epochs N, to train it for more epochs, or kdmesh run, for another one",
        )


def finished(root: Path, how: dict[str, Any]) -> bool:
    """Whether everything that was asked for stands in a run's folder as it was written; ``how`` it was begun.

    A run of a version without a table of results has finished with its summary.
    """
    if "seeds" not in how:
        return read_json(root / SUMMARY) is not None
    return complete(read_json(root / RESULTS)) and not fault(root, [SHEET, RESULTS])


def asked(root: Path) -> dict[str, Any]:
    """What the run's manifest says."""
    try:
        found: dict[str, Any] = json.loads(read(root / MANIFEST))
        lacks = [part for part in PARTS if not isinstance(found.get(part), dict)] if isinstance(found, dict) else PARTS
        if lacks:
            raise ValueError(f"its manifest.json tells of no {lacks[0]}")
        refuse_newer(found, root)
        how = found["begun"]
        wrong = [key for key, kind in BEGUN.items() if not isinstance(how.get(key), kind)]
        wrong += [key for key, kind in MAYBE.items() if key in how and not isinstance(how[key], kind)]
        if wrong or not all(isinstance(folder, str) for folder in how["beside"]):
            raise ValueError(f"its manifest.json does not tell begun.{(*wrong, 'beside')[0]}")
    except OSError as error:
        what = found_at(root)
        why = f"it has no manifest.json ({error.strerror})" if what == "folder" else f"it {what}"
        why = "it is a file" if what == "file" else why
        raise MeshError(f"this is not a run's folder: {why}", file=str(root), instead="runs/<name>/<time>") from None
    except (ValueError, RecursionError) as error:
        raise MeshError(f"this is not a run's folder: {error}", file=str(root), instead="runs/<name>/<time>") from None
    return found


def begun(root: Path) -> dict[str, Any]:
    """How a run was begun, by its manifest; nothing where there is none yet."""
    how = (read_json(root / MANIFEST) or {}).get("begun")
    return how if isinstance(how, dict) else {}


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


def refuse_edits(root: Path) -> None:
    """MeshError for a run's folder that was edited, and for code that was changed; nothing is imported or written.

    Code is looked for in the folders that are searched by now.
    """
    known = asked(root)
    if any((root / name).exists() for name in (FORGOTTEN, INTENT)):
        what = "samples of this run were forgotten, and going on would learn them again"
        raise MeshError(what, file=str(root), instead="kdmesh run, with data that they were taken out of")
    if (link := link_outside(root)) is not None:
        raise MeshError(
            f"{link.relative_to(root)} links outside of this folder", file=str(root), instead="a copy of it"
        )
    mesh = parse(known["mesh"], file=str(root / MANIFEST))
    changed = _edited(root / GIVEN, known.get("file"))
    given = root / RESOLVED
    if given.exists():
        written = parse(load(read(given, "replace"), file=str(given)), file=str(given))
        was = differences(known["mesh"], written.model_dump(mode="json", by_alias=True, exclude_none=True))
        changed += [f"{RESOLVED}: {path}: was {old!r}, is {new!r}" for path, old, new in was]
    changed += [
        f"code.{path}: was {old!r}, is {new!r}" for path, old, new in differences(known.get("code", {}), code(mesh))
    ]
    _refuse(changed, root)


def _edited(path: Path, expected: str | None) -> list[str]:
    edited = expected is not None and path.exists() and sha256(path) != expected
    return [f"{path.name}: was edited, and a run goes on as it was begun"] if edited else []


def refuse_changes(folder: Folder, plan: Plan, checked: Checked, within: Path | None = None) -> None:
    """MeshError, with what differs, if the mesh's file, its data or a teacher's weights are not what they were.

    ``within``: of a part of a run, the folder of the whole, which may have been moved with all that is in it.
    """
    refuse_edits(folder.root)
    before, now = asked(folder.root), manifest(plan, checked)
    if within is not None and "whole" in before["begun"]:
        before = _moved(before, before["begun"]["whole"], str(within.resolve()))
    changed = [
        f"{part}.{path}: was {old!r}, is {new!r}"
        for part in SAME
        for path, old, new in differences(before.get(part, {}), json.loads(to_json(now[part])))
    ]
    for name, old, new in differences(before.get("given", {}), now["given"]):
        if name not in plan.spec.agents or plan.spec.agents[name].update == "frozen":
            changed.append(f"given.{name}: was {old!r}, is {new!r}")
        else:  # its checkpoints have its weights, from the beginning of its stage on
            checked.notes.append(f"the module given for {name} has other weights than it had when the run began")
    _refuse(changed, folder.root)
    versions = {"python": now["python"], **now["packages"]}
    for name, old in {"python": before.get("python"), **before.get("packages", {})}.items():
        if old != versions.get(name):
            checked.notes.append(f"{name} was {old}, is {versions.get(name)}: weights may differ in their last bits")


def refuse_others(before: dict[str, Any], plan: Plan, checked: Checked) -> None:
    """MeshError, with what differs, if a run would be made of other data, weights or code than those it belongs to.

    ``before``: the parts of :func:`made_of` that are compared.
    """
    known = json.loads(to_json(made_of(plan, checked)))
    now = {part: known[part] for part in before}
    _refuse([f"{path}: was {old!r}, is {new!r}" for path, old, new in differences(before, now)], None)


def _refuse(changed: list[str], root: Path | None) -> None:
    if changed:
        more = [f"and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
        raise MeshError(
            "what this run was made of has changed:\n    " + "\n    ".join([*changed[:SHOWN], *more]),
            file=str(root) if root is not None else "",
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
