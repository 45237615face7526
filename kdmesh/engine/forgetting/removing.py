"""Taking out what samples left in a run's folder and in the store, so that a kill leaves something to go on with.

``forgetting.json`` says what is under way, from before the first change until after the last; each change may be made
twice. ``forgotten.jsonl`` keeps what was done, a line for each time: no text of a sample, and, with the key of
pseudonyms, a tag of each sample's number by which its owner can prove that it is among them.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import FORGOTTEN, INTENT, PERSONAL, SUMS
from kdmesh.engine import sums
from kdmesh.engine.forgetting.reached import parts_of
from kdmesh.engine.lock import held
from kdmesh.errors import MeshError
from kdmesh.files import read, read_json, reason, remedy, sha256, to_json, write, write_json
from kdmesh.personal.key import key
from kdmesh.personal.log import signer
from kdmesh.store.forgetting import take_out

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.engine.forgetting.reached import Reached
    from kdmesh.store import Store

ABOUT = "forgotten sample"


def pending(root: Path) -> list[int]:
    """The rows of a removal that was begun and not finished."""
    found = (read_json(root / INTENT) or {}).get("rows")
    return [one for one in found if isinstance(one, int)] if isinstance(found, list) else []


def remove(root: Path, found: Reached, store: Store | None) -> dict[str, Any]:
    """Take out what can be; the line that is kept of it. MeshError where a file is not what the run wrote: then
    nothing is changed; and where the disk says no: then the same command goes on.
    """
    with held(root):
        try:
            return _removed(root, found, store)
        except OSError as error:
            instead = f"{remedy(error) or 'make it writable'}, and the same command again: it goes on"
            raise MeshError(f"cannot be changed: {reason(error)}", file=str(root), instead=instead) from None


def _removed(root: Path, found: Reached, store: Store | None) -> dict[str, Any]:
    changes = [one for one in found.places if one.change is not None]
    parts = parts_of(root)
    if not (root / INTENT).exists():
        _prove(parts, {root / one.path for one in changes})
        before = sha256(root / SUMS) if (root / SUMS).exists() else None
        write_json(root / INTENT, {"rows": list(found.asked.rows), "sums": before})
    intent = read_json(root / INTENT) or {}
    write_json(root / INTENT, {**intent, "rows": sorted({*pending(root), *found.asked.rows})})
    gone = 0 if store is None or not found.entries else take_out(store.root, found.samples)
    for one in changes:
        assert one.change is not None
        if (root / one.path).exists():
            one.change(root / one.path)
    line = _line(found, gone, intent.get("sums"))
    _keep(root, line)
    _mend(root, parts, {(root / one.path).resolve() for one in changes})
    (root / INTENT).unlink()
    return line


def _prove(parts: list[Path], changed: set[Path]) -> None:
    """MeshError where a file that is to be changed is not what the run wrote: its sum would say that it is."""
    for path in changed:
        if path.name == PERSONAL and path.exists():
            signer(path)
    for part in parts:
        for name, expected in sums.told(part).items():
            if part / name in changed and (not (part / name).is_file() or sha256(part / name) != expected):
                what = "is not what the run wrote, and nothing was changed"
                instead = f"put it back as it was: kdmesh verify {part} names all such files"
                raise MeshError(what, file=str(part / name), instead=instead)


def _line(found: Reached, rows: int, before: Any) -> dict[str, Any]:
    secret = key()
    tags = None if secret is None else sorted(secret.tag(str(row).encode(), ABOUT) for row in found.asked.rows)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "samples": len(found.asked.rows),
        "key": None if secret is None else secret.identity,
        "tags": tags,
        "removed": [{"path": one.path, "what": one.what} for one in found.places if one.change is not None],
        "store": {"rows": rows, "entries": [one.digest[:12] for one in found.entries]},
        "retrain": [one.path.name for one in found.weights],
        "sums_before": before,
    }


def _keep(root: Path, line: dict[str, Any]) -> None:
    path = root / FORGOTTEN
    before = read(path) if path.exists() else ""
    write(path, f"{before}{to_json(line)}\n")


def _mend(root: Path, parts: list[Path], changed: set[Path]) -> None:
    """Write the sums of what was changed anew, from the innermost part to the whole."""
    for part in sorted(parts, key=lambda one: -len(one.parts)):
        known = sums.told(part)
        if not known:
            continue
        names = [name for name in known if (part / name).resolve() in changed and (part / name).exists()]
        if part == root:
            names.append(FORGOTTEN)
        if names:
            sums.keep(part, names)
            changed.add((part / SUMS).resolve())


def told(root: Path) -> list[dict[str, Any]]:
    """What was forgotten in a run, a line for each time; a damaged line is left out."""
    try:
        lines = read(root / FORGOTTEN).splitlines()
    except (OSError, UnicodeError):
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return [one for one in found if isinstance(one, dict)]
