"""Runs side by side, and comparisons and sweeps: a row for each, and what of them can go."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdmesh.contracts.run_files import (
    CHECKPOINTS,
    FAULT,
    GIVEN,
    LOCK,
    LOG,
    MANIFEST,
    PLACEMENT,
    PROGRESS,
    RESOLVED,
)
from kdmesh.errors import MeshError
from kdmesh.files import DRAFT, inside, read_json
from kdmesh.report.folders import FINISHED, INCOMPLETE, MANY, RUNNING, begun, size_of
from kdmesh.report.grid import KEPT, Column, Grid
from kdmesh.report.run_folder import ALSO, MISREAD, RunFolder, read
from kdmesh.statistics import than

DAY = 24 * 3600
HALF = re.compile(rf"\.([0-9a-f]{{8}}|progress){re.escape(DRAFT)}")  # a file that is not whole yet
BEGUN = frozenset({FAULT, GIVEN, LOCK, LOG, MANIFEST, PLACEMENT, PROGRESS, RESOLVED})  # all before training
SHOWN = 3  # students, and verdicts, that a row names
UNREADABLE = "unreadable"  # in place of a status: a run of a newer version, or a damaged one
SPANS = (("d", DAY), ("h", 3600), ("min", 60))


@dataclass(frozen=True)
class Row:
    """What a list of runs says of one, or of a comparison or sweep.

    Attributes:
        kind: `run`, or a key of `kdmesh.report.folders.MANY`.
        path: the folder; ``run``: the same from where the list begins.
        name: of the mesh.
        status: a key of `kdmesh.report.folders.STATUSES`, or ``unreadable``.
        error: why it failed, or cannot be read.
        verdicts: in words, a student and control each, or two contenders; of one seed, or without controls, none.
        metric: the one of the run; ``students``: its mean on test over seeds, by student, or by contender or arm.
        seeds: how many were measured; ``asked``: how many there are to be.
        begun: in seconds since the epoch.
        size: in bytes.
    """

    path: Path
    run: str
    name: str = ""
    status: str = UNREADABLE
    error: str = ""
    verdicts: tuple[str, ...] = ()
    metric: str = ""
    students: tuple[tuple[str, float], ...] = ()
    seeds: int = 0
    asked: int = 0
    begun: float = 0.0
    size: int = 0
    kind: str = "run"

    def record(self) -> dict[str, Any]:
        """The row as JSON has it."""
        begun = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.begun)) if self.begun else None
        return {
            "kind": self.kind, "path": str(self.path), "name": self.name, "status": self.status, "error": self.error,
            "verdicts": list(self.verdicts), "metric": self.metric, "students": dict(self.students),
            "seeds": self.seeds, "asked": self.asked, "begun": begun, "bytes": self.size,
        }  # fmt: skip


def row(path: Path, parent: Path) -> tuple[Row, RunFolder | None]:
    """A run's row, and its folder; None where that cannot be read."""
    run = path.relative_to(parent).as_posix() if path != parent else path.name
    try:
        found = read(path)
    except MeshError as error:
        return Row(path, run, error=error.what), None
    metric, students, verdicts = _results((found.results or {}).get("over_seeds"))
    return Row(
        path, run, found.name, found.status, found.error, tuple(verdicts), metric, tuple(students),
        len(found.summaries), len(found.seed_numbers), found.begun, found.size,
    ), found  # fmt: skip


def row_of_many(path: Path, parent: Path, kind: str, status: str) -> Row:
    """The row of a comparison or sweep, by its table if it has one yet."""
    at = path.relative_to(parent).as_posix() if path != parent else path.name
    written = read_json(path / MANY[kind][1]) or {}
    table: Any = written.get("final") if kind == "sweep" else written  # in the form of a comparison's
    try:
        metric, seeds = str(table["metric"]), len(table["seeds"])
        students = [(one["contender"], float(one["mean"])) for one in table["contenders"] if "mean" in one]
        verdicts = [
            f"{one['contender']} {one['verdict']} {than(one['verdict'])} {one['against']}"
            for one in table["differences"]
            if one.get("verdict")
        ]
    except MISREAD:
        metric, seeds, students, verdicts = "", 0, [], []
    return Row(
        path, at, path.parent.name, status, "", tuple(verdicts), metric, tuple(students), seeds, seeds, begun(path),
        size_of(path), kind,
    )  # fmt: skip


def _results(over_seeds: object) -> tuple[str, list[tuple[str, float]], list[str]]:
    """The metric, students with their figure, and verdicts in words; nothing of what is not as a run writes it."""
    if not isinstance(over_seeds, dict):
        return "", [], []
    try:
        metric = str(over_seeds["metric"])
        students = [
            (name, float(of["mean"]))
            for name, of in over_seeds[metric].items()
            if of["role"] not in ("consensus", "teacher", "writer")
        ]
        return metric, students, [_words(one) for one in over_seeds["verdicts"] if one["verdict"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return "", [], []


def _words(verdict: dict[str, Any]) -> str:
    """A verdict as a sentence without its end: `s better than alone`."""
    return f"{verdict['agent']} {verdict['verdict']} {than(verdict['verdict'])} {ALSO[verdict['against']]}"


def listed(rows: Sequence[Row], now: float | None = None) -> Grid:
    """Lay runs out, or comparisons and sweeps, in their order."""
    now = time.time() if now is None else now
    cells = [
        {
            "run": one.run,
            "status": one.status,
            "verdict": _few(one.verdicts, ";\n"),
            "figure": _figures(one),
            "seeds": None if not one.asked else f"{one.seeds}/{one.asked}" if one.seeds < one.asked else f"{one.asked}",
            "age": span(now - one.begun) if one.begun else None,
            "size": amount(one.size) if one.size else None,
        }
        for one in rows
    ]
    columns = [
        Column("run", "run", spare=KEPT),
        Column("status", "status"),
        Column("verdict", "verdict", spare=1),
        Column("on test", "figure", spare=1),
        Column("seeds", "seeds", _as_it_is, spare=2),
        Column("age", "age", _as_it_is),
        Column("size", "size", _as_it_is),
    ]
    notes = [f"{one.run}: {one.error}" for one in rows if one.status == UNREADABLE]
    counts = Counter(one.kind for one in rows)
    title = " and ".join(f"{count} {kind if count == 1 else f'{kind}s'}" for kind, count in counts.items())
    return Grid(title, columns, cells, "\n".join(notes))


def _as_it_is(text: str) -> str:
    """Another function than `str`, which aligns a column to the left."""
    return text


def _few(texts: Sequence[str], between: str, most: int = SHOWN) -> str | None:
    if not texts:
        return None
    more = [f"{len(texts) - most} more"] if len(texts) > most else []
    return between.join([*texts[:most], *more])


def _figures(one: Row) -> str | None:
    """The metric, and below it a line per student, without its name where there is only one."""
    named = len(one.students) > 1
    figures = [f"{name} {value:.4f}" if named else f"{value:.4f}" for name, value in one.students]
    return _few([one.metric.replace("_", " "), *figures], "\n", 1 + SHOWN) if figures else None


def span(seconds: float) -> str:
    """A time in its largest unit: `3 d`, `5 min`."""
    return next((f"{seconds / size:.0f} {unit}" for unit, size in SPANS if seconds >= size), f"{max(seconds, 0):.0f} s")


def amount(size: int) -> str:
    """Bytes in the unit that leaves at most four digits: `1.2 MB`."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


@dataclass(frozen=True)
class Spare:
    """What can go: a file or folder within the folder of a run, its size in bytes, and why; ``past`` its term."""

    run: Path
    path: Path
    size: int
    why: str
    past: bool = False


def spare(run: RunFolder, now: float | None = None) -> list[Spare]:
    """What of a run can go. Nothing of one that goes on, and nothing that leads out of its folder.

    A run that was interrupted keeps everything: it can be resumed.
    """
    if run.status == RUNNING:
        return []
    now = time.time() if now is None else now
    if run.status == INCOMPLETE:
        why = f"it never began to train, {span(now - run.begun)} ago"
        untouched = _only(run.path, BEGUN)  # what else may be there is not ours, or was trained
        return [Spare(run.path, run.path, run.size, why)] if untouched and now - run.begun > DAY else []
    found: list[tuple[Path, str]] = []
    if run.status == FINISHED:
        folders = (part.path / CHECKPOINTS for _, part in run.parts)
        found = [(path, "checkpoints of a finished run") for path in folders if path.is_dir()]
    goes = {path for path, _ in found}
    drafts = (path for path in _drafts(run.path) if goes.isdisjoint(path.parents))
    found += [(path, "left half written by a kill") for path in drafts]
    return [Spare(run.path, path, size_of(path), why) for path, why in found if _within(run.path, path)]


def _within(root: Path, path: Path) -> bool:
    """Whether a path is below a folder itself, not through a link."""
    try:
        inside(root, *path.relative_to(root).parts)
    except MeshError:
        return False
    return path.resolve() == root.resolve() / path.relative_to(root)


def _drafts(folder: Path) -> Iterator[Path]:
    """Files that were never given their name; links are not followed."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in sorted(names) if HALF.fullmatch(name))


def _only(folder: Path, known: frozenset[str]) -> bool:
    """Whether a folder, with all in it, has no files but of these names, and drafts; no link is known."""
    for parent, folders, names in os.walk(folder):
        if any(os.path.islink(os.path.join(parent, name)) for name in (*folders, *names)):
            return False
        if any(name not in known and not HALF.fullmatch(name) for name in names):
            return False
    return True


def delete(one: Spare) -> str:
    """Delete what can go, while the caller holds the run's folder; why it stays if it has come to be of use.

    OSError where that is not possible.
    """
    if one.path not in (still.path for still in spare(read(one.run, held=False))):
        return "stays: the run has got on meanwhile"
    if one.path.is_dir():
        shutil.rmtree(one.path)
    else:
        one.path.unlink()
    return ""
