"""Trials of one command, made side by side with one progress: what comparisons and sweeps share."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from time import monotonic, strftime
from typing import TYPE_CHECKING, Any, Protocol

from kdmesh.compare.pool import Pool
from kdmesh.contracts.run_files import PROGRESS, SUMMARY
from kdmesh.engine import sums
from kdmesh.engine.collect import fresh
from kdmesh.engine.resume import begun, finished
from kdmesh.engine.spent import flag_of, of_trials
from kdmesh.errors import MeshError, RunFailed, RunPaused
from kdmesh.files import DRAFT, LONE, read_json, reason, remedy, sha256, to_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from kdmesh.compare.child import Order

    class Trial(Hashable, Protocol):
        """A run; ``str`` of it is how it is told of, ``folder`` its place within the command's folder."""

        @property
        def folder(self) -> str:
            """Its run's folder."""
            ...


EVERY, LINES = 0.5, 50  # seconds between two writings of how far it is; lines that are kept


@dataclass
class Told:
    """What a command with many trials tells while it goes on.

    Attributes:
        trials, whole: how many there are, and how many are whole.
        done, total: steps of all trials; what was whole before counts as done.
        running: per trial that runs, its share that is done.
        line: something worth a line; empty where only figures moved.
    """

    trials: int
    whole: int = 0
    done: int = 0
    total: int = 0
    running: dict[str, float] = field(default_factory=dict)
    line: str = ""


@dataclass
class Maker:
    """Makes trials in a folder, and tells how far the whole is.

    Attributes:
        root: the command's folder.
        workers: trials side by side.
        told, shown: how far it is, and who is told.
        size: steps of a trial.
        failed: why a trial failed.
        paused: what a trial stands still for, and where that is written.
    """

    root: Path
    workers: int
    told: Told
    shown: Callable[[Told], None]
    size: Callable[[Any], int]
    failed: dict[Any, str] = field(default_factory=dict)
    paused: dict[Any, list[str]] = field(default_factory=dict)
    _part: dict[Any, int] = field(default_factory=dict)
    _noted: set[str] = field(default_factory=set)
    _lines: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=LINES))
    _due: float = 0.0

    def make(
        self, trials: Sequence[Any], order: Callable[[Any], Order], said: Callable[[Any, dict[str, Any]], str]
    ) -> None:
        """Make those that are not whole; ``said`` gives the words about a trial's summary.

        KeyboardInterrupt, with how to go on, where it was interrupted; each trial then has a checkpoint. RunPaused,
        once all others are made, where trials stand still for what their user has to decide, as for a spent budget.
        """
        self.count(trials)
        lacking = [trial for trial in trials if trial not in self._part]

        def hear(trial: Any, what: dict[str, Any]) -> None:
            line = ""
            if "done" in what and what.get("total"):
                share = min(1.0, what["done"] / what["total"])
                self._part[trial], self.told.running[str(trial)] = round(share * self.size(trial)), share
            elif "begun" in what:
                self.told.running[str(trial)] = 0.0
            elif "ended" in what:
                self.told.running.pop(str(trial), None)
                if "paused" in what:
                    self.paused[trial] = what["paused"]
                    self._part.pop(trial, None)
                    line = f"{trial} is paused: {what['paused'][0]}"
                else:
                    self._part[trial] = self.size(trial)
                    line = (
                        f"{trial} failed: {what['error']}" if what["error"] else said(trial, self.summary(trial) or {})
                    )
                    self.told.whole += not what["error"]
                    if what["error"]:
                        self.failed[trial] = what["error"]
            elif "note" in what and what["note"] not in self._noted:
                self._noted.add(what["note"])
                line = f"note: {what['note']}"
            self.tell(line, "begun" in what or "ended" in what)

        try:
            Pool(min(self.workers, max(1, len(lacking))), hear).run((trial, order(trial)) for trial in lacking)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"go on with: kdmesh resume {self.root}") from None
        if self.paused:
            first, (what, where) = next(iter(self.paused.items()))
            raise RunPaused(
                f"{len(self.paused)} of {self.told.trials} trials are paused; {first}: {what}; {of_trials(self.root)}",
                where=where,
                file=str(self.root),
                instead=f"kdmesh resume {self.root} --more {flag_of(where)}=N, which adds so many to each trial that "
                "is begun and not whole; all answers so far are kept",
            )

    def count(self, trials: Sequence[Any]) -> None:
        """Count those that are whole already."""
        whole = [trial for trial in trials if trial not in self._part and self.whole(trial)]
        self._part |= {trial: self.size(trial) for trial in whole}
        self.told.whole += len(whole)
        self.tell(f"{len(whole)} of {len(trials)} trials are whole already" if whole else "")

    def whole(self, trial: Trial) -> bool:
        """Whether a trial's folder has everything that was asked for."""
        folder = self.root / trial.folder
        how = begun(folder)
        return bool(how) and finished(folder, how)

    def summary(self, trial: Trial) -> dict[str, Any] | None:
        """The summary of a trial that is whole; None of another."""
        return read_json(self.root / trial.folder / SUMMARY) if self.whole(trial) else None

    def tell(self, line: str, at_once: bool = False) -> None:
        """Tell how far it is, with a line where something is worth one; ``at_once``: also whoever watches it."""
        self.told.line, self.told.done = line, sum(self._part.values())
        self.shown(self.told)
        if line:
            self._lines.append((self._lines[-1][0] + 1 if self._lines else 1, line))
        if line or at_once or monotonic() >= self._due:
            self._due = monotonic() + EVERY
            with suppress(OSError):  # nobody misses it
                self._write()

    def _write(self) -> None:
        """Keep how far it is for `kdmesh watch`: numbers, and the last lines with their numbers."""
        how = {key: value for key, value in asdict(self.told).items() if key != "line"}
        draft = self.root / f".progress{DRAFT}"
        draft.write_text(to_json({"version": 1, **how, "lines": list(self._lines)}), "utf-8", LONE)
        draft.replace(self.root / PROGRESS)

    def close(self) -> None:
        """Nothing is made any more."""
        for name in (PROGRESS, f".progress{DRAFT}"):
            with suppress(OSError):
                (self.root / name).unlink(missing_ok=True)


def begin(out: Path, name: str, what: str, file: str, design: dict[str, Any]) -> Path:
    """Make the folder of a command with many trials, ``out/<name>/<time>``, with its design in ``file``.

    ``what``: a word for it in errors: MeshError where the folder cannot be made, RunFailed where the disk is full.
    """
    try:
        root = fresh(out / name[:60], strftime("%Y%m%d-%H%M%S"))
    except OSError as error:
        raise MeshError(
            f"cannot write the {what}'s folder: {error.strerror}", where="--out", instead="a writable folder"
        ) from None
    try:
        write_json(root / file, design)
        sums.keep(root, [file])
    except OSError as error:
        raise unwritten(root, error, what, f"{what} again") from error
    return root


def unwritten(root: Path, error: OSError, what: str, then: str = "") -> RunFailed:
    """What to say where a file of such a folder could not be written, and what to do ``then``: by default resume."""
    return RunFailed(
        f"a file of the {what} could not be written: {reason(error)}",
        file=str(root),
        instead=f"{remedy(error) or 'free disk space'}, then {then or f'kdmesh resume {root}'}",
    )


def refuse_edited(root: Path, file: str, what: str) -> None:
    """MeshError where the design in ``file``, or another that trials follow, is not as it was written.

    One of a version that kept no sum of it is taken as it is.
    """
    if sums.told(root).get(file, (now := sha256(root / file))) != now:
        raise MeshError(
            f"was edited since the {what} began: its trials would not be of one design",
            file=str(root / file),
            instead=f"put it back as it was, or begin a new {what}",
        )


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
