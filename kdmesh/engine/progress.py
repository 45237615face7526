"""One progress for a run of several seeds and controls: which part begins, and how much lies behind and ahead of it.

Listeners are told of it, and the run's folder has it as ``progress.json`` for whoever watches from elsewhere.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from kdmesh.checks.budget import stage_steps
from kdmesh.contracts.events import SCHEMA, Note, PartStarted, RunStarted, StageFinished
from kdmesh.contracts.events import Progress as Advance
from kdmesh.contracts.run_files import PROGRESS, control_name, seed_name
from kdmesh.engine.controls import apart
from kdmesh.engine.events import Events
from kdmesh.files import DRAFT, LONE, to_json
from kdmesh.graph.roles import TAUGHT, roles, teachers_of

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.checks.checked import Checked
    from kdmesh.contracts.events import Event
    from kdmesh.engine.events import Listener
    from kdmesh.graph.plan import Plan

EVERY = 0.5  # seconds between two writings of progress.json
SHARE = 200  # of a run's time at most 1 / SHARE goes into them, however slow the disk is


class Progress:
    """Tells listeners of every part's events, on one clock, and before each of how many it is and what is left."""

    def __init__(
        self,
        listeners: tuple[Listener, ...],
        sizes: dict[str, int],
        log: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        """``sizes``: the steps of every part, in order; those of a control as its student's stage had them.

        ``log``: of the whole, where it has one of its own beside those of its parts. ``folder``: of the whole.
        """
        self.events, self.sizes = Events(log), sizes
        self.events.listeners += [*listeners, *([Written(folder / PROGRESS)] if folder is not None else [])]
        self._start, self._shift = monotonic(), 0.0
        self._done: set[str] = set()
        self._known: set[str] = set()  # notes of the check: of mesh and data, so mostly alike in every part

    def begin(self, part: str) -> None:
        """A part begins."""
        self._shift = monotonic() - self._start
        if len(self.sizes) > 1:
            names = list(self.sizes)
            behind = sum(self.sizes.get(name, 0) for name in self._done)  # a control that there is not has none
            ahead = sum(self.sizes.values()) - behind - self.sizes.get(part, 0)
            number = names.index(part) + 1 if part in names else 0
            self.events.emit(PartStarted(part, number, len(names), behind, ahead))

    def done(self, part: str) -> None:
        """Nothing is left to do for a part."""
        self._done.add(part)

    def note(self, text: str) -> None:
        """Say something about the whole."""
        self.events.emit(Note(text))

    def __call__(self, event: Event) -> None:
        """Take an event of the part that runs; what another part's check has said already is not told again."""
        if isinstance(event, Note) and event.checked:
            if event.text in self._known:
                return
            self._known.add(event.text)
        self.events.tell(replace(event, t=event.t + self._shift))


class Written:
    """A listener that keeps ``progress.json``: the part that runs, and how far each of its stages is.

    ``{"schema", "part", "stages"}``: the latest `part_started`, or null, and the latest `progress` of each stage, as
    docs/events.md has them. The file takes the place of the one before, is not synced, and goes away at the end; where
    it cannot be written, nobody misses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part: PartStarted | None = None
        self._stages: dict[str, Advance] = {}
        self._due = 0.0
        self.close()  # what a kill has left

    def __call__(self, event: Event) -> None:
        """Take note of an event, and write where it is time."""
        match event:
            case PartStarted():
                self._part, self._stages, self._due = event, {}, 0.0
            case RunStarted():
                self._stages = {}
            case StageFinished():
                self._stages.pop(event.stage, None)
                return
            case Advance():
                self._stages[event.stage] = event
            case _:
                return
        if (begins := monotonic()) >= self._due:
            with suppress(OSError):
                self._write()
            ends = monotonic()
            self._due = ends + max(EVERY, SHARE * (ends - begins))

    def _write(self) -> None:
        part = None if self._part is None else self._part.record()
        stages = [event.record() for event in self._stages.values()]
        draft = self.path.with_name(f".progress{DRAFT}")
        draft.write_text(to_json({"schema": SCHEMA, "part": part, "stages": stages}), "utf-8", LONE)
        draft.replace(self.path)

    def close(self) -> None:
        """Take the file away: the run has ended."""
        for path in (self.path, self.path.with_name(f".progress{DRAFT}")):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def sizes(plan: Plan, checked: Checked, seeds: list[int], controls: bool) -> dict[str, int]:
    """The parts of a run by name, with their steps, as far as they are known before any of them ran."""
    steps = {stage.name: stage_steps(plan, checked, stage) for stage in plan.stages}
    students = {name: plan.stage_of(name) for name, role in roles(plan).items() if role in TAUGHT} if controls else {}
    found: dict[str, int] = {}
    for seed in seeds:
        found[seed_name(seed)] = sum(steps.values())
        for student, stage in students.items():
            extra = ("averaged", "pooled") if apart(plan, student) is not None else ()
            for which in (*("alone", "best_teacher")[: 1 + (len(teachers_of(plan, student)) > 1)], *extra):
                found[control_name(seed, student, which)] = steps[stage.name] if stage is not None else 0
    return found
