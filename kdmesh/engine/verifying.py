"""Whether a run's folder is what the run left: every file that is not, by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kdmesh.contracts.run_files import CHECKPOINTS, CONTROLS, ENDPOINTS, INTENT, SEEDS, STREAMS, SUMS
from kdmesh.engine.sums import told
from kdmesh.errors import MeshError
from kdmesh.files import inside, sha256

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = ("agents", "consensus")
"""Folders of which every file has a sum, so that one without was added."""
UNSUMMED = (CHECKPOINTS, ENDPOINTS, STREAMS)
"""Folders whose files have none here: what a run goes on from, was sent, and wrote."""


@dataclass
class Verified:
    """``known``: the files that have a sum, by their names from the folder; ``faults``: what is wrong, a line each;
    ``unsummed``: kinds of folders that are there, and that no sum covers.
    """

    known: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    unsummed: list[str] = field(default_factory=list)


def verify(root: Path) -> Verified:
    """Compare a run's files with their sums. MeshError of a folder that has none, such as of a run that goes on."""
    if not told(root):
        what = f"{SUMS} is not there, or names no file" if root.is_dir() else "there is no such folder"
        raise MeshError(what, file=str(root), instead="the folder of a run that has finished: `kdmesh runs` lists them")
    found = Verified()
    parts = _compare(root, root, found)
    for part in parts:
        _added(part, root, found)
    if (root / INTENT).exists():
        found.faults.append(f"{INTENT} is there: samples were being taken out, and `kdmesh forget` is to go on with it")
    found.unsummed = [name for name in UNSUMMED if any((part / name).is_dir() for part in parts)]
    return found


def _compare(root: Path, home: Path, found: Verified) -> list[Path]:
    """The files of a run, or of a part of one, with their sums; the folders that have such, this one the first."""
    parts = [root]
    for name, expected in sorted(told(root).items()):
        place = (root / name).relative_to(home).as_posix()
        found.known.add(place)
        try:
            same = sha256(inside(root, name)) == expected
        except FileNotFoundError:
            found.faults.append(f"{place} is missing")
            continue
        except (OSError, MeshError) as error:
            found.faults.append(f"{place} cannot be read: {getattr(error, 'strerror', None) or error}")
            continue
        if not same:
            found.faults.append(f"{place} is not what was written")
        if name.endswith(f"/{SUMS}"):
            parts += _compare(inside(root, name).parent, home, found)
    return parts


def _added(part: Path, home: Path, found: Verified) -> None:
    """What has no sum where all have one."""
    files = [path for name in WHOLE for path in (part / name).rglob("*") if path.is_symlink() or not path.is_dir()]
    names = {path.relative_to(home).as_posix(): path.relative_to(home).as_posix() for path in files}
    for name in (SEEDS, CONTROLS):
        for path in (part / name).glob("*"):
            place = path.relative_to(home).as_posix()
            names[f"{place}/{SUMS}"] = place
    found.faults += [f"{place} was added" for name, place in sorted(names.items()) if name not in found.known]
