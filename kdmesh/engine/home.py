"""A stage as its phases and rounds know it: where it stands, and what it does between two chunks of steps."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import wait
from kdmesh.contracts.events import RoundFinished
from kdmesh.engine import histories
from kdmesh.engine.context import StageRecord
from kdmesh.engine.position import Paused, Position
from kdmesh.graph.gates import dated
from kdmesh.hosts.remote import RemoteHost
from kdmesh.hosts.step import ALONE, Turn
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kdmesh.backends._base import Handle, Work
    from kdmesh.engine.context import RunContext
    from kdmesh.graph.plan import Stage
    from kdmesh.hosts.step import Wrote


RECORDED = [field.name for field in fields(StageRecord)]


class StageHome:
    """One stage of a run. Generators yield handles and are sent their values."""

    def __init__(self, run: RunContext, stage: Stage, known: dict[str, Any]) -> None:
        """``known``: what a checkpoint holds of it, nothing at the start."""
        self.run, self.stage = run, stage
        self.position = Position(known.get("at", ()))
        self.round: int | None = None  # of the innermost repetition that is under way
        self.attended: list[str] = []  # the parties that take part in it, where not all need to
        self.record = StageRecord(**{name: known[name] for name in RECORDED if name in known})
        self.written = time.monotonic()
        self._dated = dated(run.plan, registry())

    @property
    def turn(self) -> Turn:
        """Where in its rounds it is."""
        return ALONE

    @property
    def lessons(self) -> dict[str, int]:
        """How many steps of each lesson are done."""
        return {}

    def validate(self, agents: Sequence[str]) -> Work[list[dict[str, Any]]]:
        """The figures of agents on validation, while they train; gates that ask are told when that was."""
        found = [self.run.evaluate(agent, "validation") for agent in agents]
        told = [agent for agent in agents if agent in self._dated]
        yield from wait([self.run.submit(agent, RemoteHost.measured_at, agent, self.lessons) for agent in told])
        return (yield from wait(found))

    def publish(self, handles: Sequence[Handle[object]]) -> Work[None]:
        """Wait for publications, and report oddities in them."""
        for found in (yield from wait(handles)):
            if isinstance(found, list):  # of a host that read some
                self.run.tell_odd(found)

    def moment(self, at: str) -> str:
        """When something is published that is asked for once: where the stage stands, and who took part until now.

        What is said in a round depends on who was in it, and in those before: one that begins again without somebody is
        another.
        """
        return f"{at}, {self.who}" if self.attended else at

    @property
    def who(self) -> str:
        """A sum of who took part in each round until now; "" where all need to."""
        if not self.attended:
            return ""
        who = [sorted(record.get("attended", [])) for record in self.record.records] + [sorted(self.attended)]
        return hashlib.sha256(json.dumps(who).encode()).hexdigest()[:16]

    def remember(self, names: Sequence[str]) -> Work[None]:
        """Have the round that is over kept of some consensus nodes."""
        yield from histories.remember(self.run, self.record, names)

    def remember_texts(self, wrote: Sequence[Wrote]) -> Work[None]:
        """Have what rules chose kept, of the streams that have a history."""
        yield from histories.remember_texts(self.run, self.record, wrote)

    def merge(self, leaving: Collection[tuple[str, str]], at: int, to: str | None = None) -> Work[None]:
        """At a time: wait until the weights that leave have arrived; see :meth:`Merger.due`."""
        away = self.run.away
        here = [(source, refresh) for source, refresh in leaving if source not in away]
        yield from wait(self.run.merger.due(self.stage, here, at, to, away))

    def recorded(self, record: dict[str, Any]) -> None:
        """Keep a round for the summary, and tell of it."""
        self.record.records.append(record)
        self.run.events.emit(RoundFinished(**record))

    @property
    def due(self) -> bool:
        """Whether it is time to write: the run is asked to pause, or the last checkpoint is old."""
        if self.attended:
            return False  # between rounds alone: who is lost in one is not in that round
        return self.run.pausing or time.monotonic() - self.written > self.run.checkpoint_seconds

    def checkpoint_if_due(self) -> Work[None]:
        """Between two chunks of steps: write a checkpoint if one is due; raise Paused if the run is asked to pause."""
        if self.due:
            yield from self.checkpoint()
            if self.run.pausing:
                raise Paused

    def checkpoint(self, finished: bool = False) -> Work[None]:
        """Write where the stage stands; every host writes its part."""
        raise NotImplementedError
