"""One progress for a run of several seeds and controls: which part begins, and how much lies behind and ahead of it."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from kdmesh.checks.budget import stage_steps
from kdmesh.contracts.events import Note, PartStarted
from kdmesh.engine.events import Events
from kdmesh.graph.roles import TAUGHT, roles, teachers_of

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.checks.checked import Checked
    from kdmesh.contracts.events import Event
    from kdmesh.engine.events import Listener
    from kdmesh.graph.plan import Plan


class Progress:
    """Tells listeners of every part's events, on one clock, and before each of how many it is and what is left."""

    def __init__(self, listeners: tuple[Listener, ...], sizes: dict[str, int], log: Path | None = None) -> None:
        """``sizes``: the steps of every part, in order; those of a control as its student's stage had them.

        ``log``: of the whole, where it has one of its own beside those of its parts.
        """
        self.events, self.sizes = Events(log), sizes
        self.events.listeners += listeners
        self._start, self._shift = monotonic(), 0.0
        self._done: set[str] = set()
        self._known: set[str] = set()  # notes of the check: of mesh and data, so mostly alike in every part

    def begin(self, part: str) -> None:
        """A part begins."""
        self._shift = monotonic() - self._start
        if len(self.sizes) > 1:
            names = list(self.sizes)
            behind = sum(self.sizes[name] for name in self._done)
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


def sizes(plan: Plan, checked: Checked, seeds: list[int], controls: bool) -> dict[str, int]:
    """The parts of a run by name, with their steps, as far as they are known before any of them ran."""
    steps = {stage.name: stage_steps(plan, checked, stage) for stage in plan.stages}
    students = {name: plan.stage_of(name) for name, role in roles(plan).items() if role in TAUGHT} if controls else {}
    found: dict[str, int] = {}
    for seed in seeds:
        found[seed_name(seed)] = sum(steps.values())
        for student, stage in students.items():
            for which in ("alone", "best_teacher")[: 1 + (len(teachers_of(plan, student)) > 1)]:
                found[control_name(seed, student, which)] = steps[stage.name] if stage is not None else 0
    return found


def seed_name(seed: int) -> str:
    """How a seed is called where it is told of."""
    return f"seed {seed}"


def control_name(seed: int, student: str, which: str) -> str:
    """How a control is called where it is told of."""
    return f"seed {seed}, {student} {'alone' if which == 'alone' else 'by the best teacher only'}"
