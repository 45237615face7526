"""A run's folder as data: what was asked, how it stands, what happened, what came out. Only reads; imports no torch.

Whatever shows runs begins here: :func:`read` for one folder; `kdmesh.report.folders` finds those below another. A
folder may be of a run that goes on, was killed, or was written by another version: what is not there is None or empty,
and what cannot be read is said in ``remarks``. Text in it is as it was found: escape it where it is shown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdmesh.contracts.events import RunFailed, RunFinished, StageStarted
from kdmesh.contracts.run_files import (
    CONTROLS,
    LOCK,
    LOG,
    MANIFEST,
    MOST_SEEDS,
    RESULTS,
    SEEDS,
    SUMMARY,
    TRIALS,
    control_name,
    refuse_newer,
    seed_name,
)
from kdmesh.errors import MeshError
from kdmesh.files import found_at, locked, read_json
from kdmesh.files import read as text_of
from kdmesh.report.folders import (
    FAILED,
    FINISHED,
    INCOMPLETE,
    INTERRUPTED,
    PAUSED,
    RUNNING,
    begun,
    entries,
    entry_size,
    find,
    kind_of,
)
from kdmesh.report.log import Log, last

ALSO = {"alone": "alone", "best_teacher": "best teacher only", "averaged": "FedAvg", "pooled": "pooled, simulated"}
"""Controls, and how a table calls them; their folders are called ``<student>-alone``, ``<student>-best-teacher``."""
HOW = "a run's folder: runs/<name>/<time>"
MISREAD = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What reading figures of an edited or damaged file ends in: they are not of the form in which they were written."""


@dataclass(frozen=True)
class RunFolder:
    """A run, or a part of one: a seed or a control, which has a folder like it.

    Attributes:
        path: the folder.
        name: of the mesh.
        status: a key of `STATUSES`, when it was read.
        error: why it failed, in the words of the run; else nothing.
        format: of the folder's files; `kdmesh.contracts.run_files.FORMAT` is the latest that can be read.
        begun: when the run was begun, in seconds since the epoch.
        seed_numbers: the run seeds that were asked for.
        manifest: versions, hashes, the mesh and what was asked, as in ``manifest.json``.
        summary: ``summary.json``, of one seed; None until it has been measured.
        results: ``results.json``, of the whole; None until everything was made.
        seeds: the folders of several seeds that were begun; empty for a run of one seed, which is that seed's folder.
        controls: by student and which control (of `ALSO`), the folders of this seed's controls.
    """

    path: Path
    name: str
    status: str
    error: str
    format: int
    begun: float
    seed_numbers: tuple[int, ...]
    manifest: dict[str, Any]
    summary: dict[str, Any] | None
    results: dict[str, Any] | None
    seeds: Mapping[int, RunFolder]
    controls: Mapping[tuple[str, str], RunFolder]

    @cached_property
    def log(self) -> Log:
        """The events of this folder alone, read when they are first asked for."""
        return Log.read(self.path / LOG)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Bytes by file or folder right in it, links not followed."""
        return {entry.name: entry_size(entry) for entry in entries(self.path)}

    @property
    def size(self) -> int:
        """Bytes of everything in it."""
        return sum(self.sizes.values())

    @property
    def runs(self) -> Mapping[int, RunFolder]:
        """The folder of every seed that was begun, this one if it is that of its only seed."""
        return self.seeds if len(self.seed_numbers) > 1 else {self.seed_numbers[0]: self}

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """The summaries of all seeds that have one, in the order of the seeds."""
        return [one.summary for one in self.runs.values() if one.summary is not None]

    @property
    def parts(self) -> list[tuple[str, RunFolder]]:
        """Every folder with a log that was begun, with its name: the whole's own first, then seeds with controls."""
        found = [("", self)] if len(self.seed_numbers) > 1 else []
        for seed, one in self.runs.items():
            found.append((seed_name(seed), one))
            found += [(control_name(seed, *which), control) for which, control in one.controls.items()]
        return found

    @property
    def whole(self) -> Path | None:
        """The folder of the run that this is a part of, if it is one and that is there."""
        how = self.manifest.get("begun")
        within = how.get("within") if isinstance(how, dict) else None
        whole = Path(os.path.normpath(self.path / within)) if isinstance(within, str) else None
        return whole if whole is not None and (whole / MANIFEST).is_file() else None

    @property
    def remarks(self) -> list[str]:
        """What a reader should know of how it was read, a sentence each."""
        return list(dict.fromkeys(said for _, part in self.parts for said in part.log.remarks))


def read(path: str | Path, held: bool | None = None) -> RunFolder:
    """Read the folder of a run, or of a seed or control.

    ``held``: whether a process is at work on it, for who knows; None: its lock says so. MeshError for what is no run's
    folder, and for a run that a later version wrote.
    """
    return _read(Path(path), held)


def part_folders(root: Path, seeds: Sequence[int]) -> dict[str, Path]:
    """The folders of `RunFolder.parts` by name, of the run in ``root`` with these seeds; none of them is read."""
    found = {"": root} if len(seeds) > 1 else {}
    for seed in seeds:
        at = root / SEEDS / str(seed) if len(seeds) > 1 else root
        if (at / MANIFEST).is_file():
            found |= {seed_name(seed): at, **{control_name(seed, *key): path for key, path in _controls(at)}}
    return found


def _read(root: Path, held: bool | None) -> RunFolder:
    """``held``: whether a process is at work on the run that this is a part of; None for a whole."""
    manifest = _manifest(root)
    how = manifest.get("begun")
    how = how if isinstance(how, dict) else {}
    if held is None:
        held = locked(root / LOCK) or _held_within(root, how.get("within"))
    count, seed = how.get("seeds", 1), manifest.get("seed", 0)
    if not isinstance(count, int) or not isinstance(seed, int):
        raise _no_run(root, f"its {MANIFEST} has no seed")
    if count > MOST_SEEDS:
        raise _no_run(root, f"its {MANIFEST} tells of more than {MOST_SEEDS:,} seeds")
    summary, results = read_json(root / SUMMARY), read_json(root / RESULTS)
    seeds = {}
    if count > 1:
        below = {number: root / SEEDS / str(number) for number in range(seed, seed + count)}
        seeds = {number: _read(part, held) for number, part in below.items() if (part / MANIFEST).is_file()}
    controls = {key: _read(part, held) for key, part in _controls(root)} if count == 1 else {}
    whole = "seeds" in how and "within" not in how
    status, error = _status(root, held, whole, summary, results)
    return RunFolder(
        root, manifest["mesh"].get("name", ""), status, error, refuse_newer(manifest, root), begun(root),
        tuple(range(seed, seed + max(count, 1))), manifest, summary, results, seeds, controls,
    )  # fmt: skip


def _manifest(root: Path) -> dict[str, Any]:
    try:
        found = json.loads(text_of(root / MANIFEST))
    except OSError:
        raise _no_run(root, f"it has no {MANIFEST}") from None
    except (ValueError, RecursionError):
        raise _no_run(root, f"its {MANIFEST} is damaged") from None
    if isinstance(found, dict):
        refuse_newer(found, root)
        mesh = found.get("mesh")
        if isinstance(mesh, dict) and isinstance(mesh.get("name", ""), str):
            return found
    raise _no_run(root, f"its {MANIFEST} tells of no mesh")


def _no_run(root: Path, why: str) -> MeshError:
    if (what := found_at(root)) != "folder":
        return MeshError(
            "is a file, not a run's folder" if what == "file" else what, file=str(root) or "''", instead=HOW
        )
    if what := kind_of(root):
        return MeshError(
            f"is a {what}'s folder, not a run's",
            file=str(root),
            instead=f"a run of it, in {root / TRIALS}; `kdmesh resume {root}` goes on with it, or shows its tables",
        )
    runs = find(root)
    return MeshError(f"is not a run's folder: {why}", file=str(root), instead=str(runs[0]) if runs else HOW)


def _controls(root: Path) -> Iterator[tuple[tuple[str, str], Path]]:
    """The folders of a seed's controls that were begun, in the order in which they were."""
    folders = [Path(entry.path) for entry in entries(root / CONTROLS) if (Path(entry.path) / MANIFEST).is_file()]
    for folder in sorted(folders, key=lambda one: ((one / MANIFEST).stat().st_mtime_ns, one.name)):
        for which in ALSO:
            ending = f"-{which.replace('_', '-')}"
            if folder.name.endswith(ending):
                yield (folder.name.removesuffix(ending), which), folder


def _status(
    root: Path, held: bool, whole: bool, summary: dict[str, Any] | None, results: dict[str, Any] | None
) -> tuple[str, str]:
    """How a folder stands, and why it failed. ``whole``: it gets a table of results at its end."""
    logs = _logs(root) if whole else [root / LOG]
    latest = next(filter(None, map(last, logs)), None)
    if whole and held:
        return RUNNING, ""
    if whole and results is not None:
        failed = results.get("failed")
        told = [f"{part}: {why}" for part, why in failed.items()] if isinstance(failed, dict) else []
        return (FAILED, "\n".join(told)) if told else (FINISHED, "")
    if not whole and summary is not None and (isinstance(latest, RunFinished) or not held):
        return FINISHED, ""
    if isinstance(latest, RunFailed):
        return (PAUSED, "") if latest.interrupted else (FAILED, latest.error)
    if held:
        return RUNNING, ""
    trained = any(isinstance(event, StageStarted) for log in logs for event in Log.read(log).events)
    return (INTERRUPTED if trained else INCOMPLETE), ""


def _held_within(root: Path, within: object) -> bool:
    """Whether a process is at work on the run that a folder is a part of, if it is one."""
    return isinstance(within, str) and locked(Path(os.path.normpath(root / within)) / LOCK)


def _logs(root: Path) -> list[Path]:
    """The logs of a run and of all its parts, the one that was written last first."""
    times: list[tuple[int, int, Path]] = []
    for at in ("", f"{SEEDS}/*/", f"{CONTROLS}/*/", f"{SEEDS}/*/{CONTROLS}/*/"):
        for path in root.glob(at + LOG):
            with suppress(OSError):
                times.append((path.stat().st_mtime_ns, len(path.parts), path))
    return [path for *_, path in sorted(times, reverse=True)]
