"""Folders of runs, comparisons and sweeps: which there are, what each is, how it stands, and its size."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdmesh.contracts.run_files import COMPARED, COMPARISON, LOCK, MANIFEST, SWEEP, SWEPT, TRIALS
from kdmesh.files import found_at, locked, read_json

RUNNING, PAUSED, INTERRUPTED = "running", "paused", "interrupted"
FAILED, FINISHED, INCOMPLETE = "failed", "finished", "incomplete"
STATUSES = {
    RUNNING: "a process is at work on it",
    PAUSED: "it was asked to stop, and can be resumed",
    INTERRUPTED: "its process ended without a word, as after a kill, and it can be resumed",
    FAILED: "it, or a part of it, ended with an error",
    FINISHED: "everything that was asked for is there",
    INCOMPLETE: "it never began to train",
}
"""What a run's ``status`` says."""
STAMP = "%Y%m%d-%H%M%S"  # how the name of a run's folder begins
MANY = {"comparison": (COMPARED, COMPARISON), "sweep": (SWEPT, SWEEP)}
"""What has runs in it: what was asked, and the table at its end."""


def find(parent: str | Path) -> list[Path]:
    """The folders of runs in a folder, as ``runs/<name>/<time>``, newest first; it may be a run's folder itself.

    Links that lead out of it are not followed, and trials of comparisons and sweeps are left out.
    """
    return _below(parent, MANIFEST)


def of_many(parent: str | Path) -> list[tuple[Path, str, str]]:
    """The folders of comparisons and sweeps in a folder, found as `find` does.

    Each with what it is and its status, of `STATUSES`.
    """
    found = []
    for what, (mark, end) in MANY.items():
        for path in _below(parent, mark):
            found.append((path, what, standing(path, read_json(path / end))))
    return found


def trials_of(root: Path) -> list[Path]:
    """The folders of the trials of a comparison or sweep."""
    within = [Path(entry.path) for entry in entries(root / TRIALS) if entry.is_dir(follow_symlinks=False)]
    return [path for one in within for path in find(one)]


def kind_of(folder: Path) -> str:
    """What has runs in it that stands in a folder, a key of `MANY`; empty for another folder."""
    return next((what for what, (mark, _) in MANY.items() if _is(folder / mark, "file")), "")


def newest(parent: str | Path) -> Path | None:
    """The run, comparison or sweep in a folder that was begun last; None where there is none."""
    found = [*find(parent), *(path for path, *_ in of_many(parent))]
    return max(found, key=lambda one: (begun(one), str(one)), default=None)


def standing(path: Path, table: dict[str, Any] | None) -> str:
    """The status of a comparison or sweep, of `STATUSES`, by its table; None: it has none yet."""
    if locked(path / LOCK):
        return RUNNING
    failed = table is not None and (table.get("failed") or (table.get("final") or {}).get("failed"))
    return INTERRUPTED if table is None else FAILED if failed else FINISHED


def _below(parent: str | Path, mark: str) -> list[Path]:
    parent = Path(parent)
    home = parent.resolve()
    found, levels = [], [parent]
    for _ in range(3):
        deeper = []
        for folder in levels:
            if _is(folder / mark, "file"):
                found.append(folder)
            if any(_is(folder / one, "file") for one in (MANIFEST, *(mark for mark, _ in MANY.values()))):
                continue
            inner = (Path(entry.path) for entry in entries(folder))
            deeper += [one for one in inner if _is(one, "folder") and one.resolve().is_relative_to(home)]
        levels = deeper
    return sorted(found, key=lambda one: (begun(one), str(one)), reverse=True)


def _is(path: Path, kind: str) -> bool:
    """Whether that stands there; not where it cannot be reached, as behind a link of another user's."""
    return found_at(path) == kind


def begun(root: Path) -> float:
    """When a run was begun: its folder is called so; else when its manifest was written."""
    with suppress(ValueError, OverflowError):
        return time.mktime(time.strptime(root.name[:15], STAMP))
    with suppress(OSError):
        return (root / MANIFEST).stat().st_mtime
    return 0.0


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; a link is not followed."""
    if path.is_dir() and not path.is_symlink():
        return sum(map(entry_size, entries(path)))
    with suppress(OSError):
        return path.lstat().st_size
    return 0


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder has, by name; nothing where it is none, or may not be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def entry_size(entry: os.DirEntry[str]) -> int:
    """As `size_of`, with what the folder's listing knows."""
    with suppress(OSError):  # gone meanwhile
        if entry.is_dir(follow_symlinks=False):
            return sum(map(entry_size, entries(Path(entry.path))))
        return entry.stat(follow_symlinks=False).st_size
    return 0
