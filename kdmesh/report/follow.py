"""A run's events as its process writes them, read from another one: what ``kdmesh watch`` shows.

Logs of all parts are read on from where they were left. How far a stage is stands in ``progress.json``, which the logs
do not have. Nothing is written, and nothing is held open between two looks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdmesh.contracts.events import (
    Dropped,
    Evaluated,
    Event,
    HostLost,
    Note,
    PartStarted,
    Progress,
    RoundFinished,
    RunStarted,
    StageFinished,
    StageStarted,
)
from kdmesh.contracts.events import read as event_of
from kdmesh.contracts.run_files import LOG, PROGRESS
from kdmesh.files import read_json
from kdmesh.report.log import Log
from kdmesh.report.run_folder import part_folders

KEPT = (Note, HostLost, Dropped)  # what is told of parts that are over


@dataclass
class Tail:
    """What was added to a log since it was last asked; a file that takes its place is read from its start."""

    path: Path
    at: int = 0
    file: tuple[int, int] | None = None  # device and number: another one has another

    def new(self) -> tuple[Event, ...]:
        """The events of the lines that have become whole; none while there is no file."""
        try:
            if not self.path.is_file():
                return ()
            with self.path.open("rb") as log:
                found = os.fstat(log.fileno())
                if (found.st_dev, found.st_ino) != self.file or found.st_size < self.at:
                    self.file, self.at = (found.st_dev, found.st_ino), 0
                log.seek(self.at)
                content = log.read()
        except OSError:
            return ()
        whole = content[: content.rfind(b"\n") + 1]
        self.at += len(whole)
        return Log.of(whole).events


@dataclass
class Follower:
    """Tells of a run's events in their order over all parts, as the listeners of the run's own process are told."""

    root: Path
    seeds: Sequence[int]
    _tails: dict[str, Tail] = field(default_factory=dict)  # by the name of the part; the whole's under ""
    _current: str = ""  # the part that was told of last
    _steps: dict[str, int] = field(default_factory=dict)  # of the current part, by stage
    _over: set[str] = field(default_factory=set)  # stages of it that are over
    _seen: dict[str, object] = field(default_factory=dict)  # the progress that was told last

    def new(self) -> list[Event]:
        """Everything since the last call, which is everything at the first."""
        told: list[Event] = []
        folders = part_folders(self.root, self.seeds)
        new = {name: self._tails.setdefault(name, Tail(path / LOG)).new() for name, path in folders.items()}
        progress = read_json(self.root / PROGRESS) or {}
        part = event_of(progress.get("part"))
        for event in new.pop("", ()):
            if isinstance(event, PartStarted):
                told += self._of_part(new.pop(self._current, ()))
                self._begin(event.part)
            told.append(event)
        for name, events in sorted(new.items(), key=lambda one: one[0] != self._current):
            if events and name != self._current:
                if isinstance(part, PartStarted) and part.part == name:
                    told.append(part)
                self._begin(name)
            told += self._of_part(events)
        return [*told, *self._progress(progress, part)]

    def _begin(self, part: str) -> None:
        self._current, self._steps, self._over = part, {}, set()

    def _of_part(self, events: Iterable[Event]) -> Iterator[Event]:
        """Events of one part, and before each stage that spent its budget that all its steps are done."""
        for event in events:
            if isinstance(event, RunStarted):
                self._steps = {row["stage"]: row["steps"] for row in event.stages}
            elif isinstance(event, StageStarted):
                self._over.discard(event.stage)
            elif isinstance(event, StageFinished):
                self._over.add(event.stage)
            if isinstance(event, StageFinished) and event.reason == "spent" and event.stage in self._steps:
                steps = self._steps[event.stage]
                yield Progress(event.stage, steps, steps, {}, t=event.t)
            yield event

    def _progress(self, found: dict[str, object], part: Event | None) -> Iterator[Event]:
        """How far the stages are that go on, where that has changed and is of the part that is told of."""
        if isinstance(part, PartStarted) and part.part != self._current:
            return
        stages = found.get("stages")
        for record in stages if isinstance(stages, list) else ():
            event = event_of(record)
            if not isinstance(event, Progress) or event.stage in self._over:
                continue
            if self._seen.get(event.stage) != record:
                self._seen[event.stage] = record
                yield event


def standing(events: Iterable[Event]) -> list[Event]:
    """What to tell of a past that nobody saw: the part that goes on, with its latest figures; notes and losses of all.

    Of rounds and evaluations in it the last of each stage, and of each agent and stream, stand for those before.
    """
    events = list(events)
    starts = [at for at, event in enumerate(events) if isinstance(event, PartStarted)]
    if not starts:
        starts = [at for at, event in enumerate(events) if isinstance(event, RunStarted)]
    begin = starts[-1] if starts else 0
    last = {_about(event): at for at, event in enumerate(events)}
    before = [event for event in events[:begin] if isinstance(event, KEPT)]
    return [
        *{repr(event.record() | {"t": 0}): event for event in before}.values(),
        *(event for at, event in enumerate(events) if at >= begin and last[_about(event)] == at),
    ]


def _about(event: Event) -> object:
    """What an event is about, where a later one of the same says it anew; else itself."""
    match event:
        case RoundFinished():
            return "round", event.stage
        case Evaluated():
            return "evaluated", event.stage, event.agent, event.stream
        case Progress():
            return "progress", event.stage
    return id(event)
