"""A folder's log of events as data: what this version knows of it, and what it does not."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdmesh.contracts.events import KINDS, SCHEMA, Event
from kdmesh.contracts.events import read as event_of
from kdmesh.contracts.run_files import LOG

TAIL = 64 * 1024  # bytes at a log's end in which its last line is looked for


@dataclass(frozen=True)
class Log:
    """The events of one folder, in order.

    Attributes:
        events: those that this version knows.
        schema: the highest version of the schema that a line names; None if none does.
        cut: whether the last line is not whole: it is being written, or the process was killed.
        unknown: how many lines there are of each kind that this version does not know; under ``""`` those that are no
            event at all.
    """

    events: tuple[Event, ...] = ()
    schema: int | None = None
    cut: bool = False
    unknown: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Log:
        """The log in a file; an empty one where there is no file."""
        try:
            content = path.read_bytes() if path.is_file() else b""
        except OSError:
            return cls()
        return cls.of(content)

    @classmethod
    def of(cls, content: bytes) -> Log:
        """The log in the bytes of a file."""
        events: list[Event] = []
        unknown: Counter[str] = Counter()
        schema: int | None = None
        lines = content.split(b"\n")
        rest = lines.pop()
        for line in filter(None, lines):
            record = _record(line)
            number = record.get("schema")
            if isinstance(number, int):
                schema = max(schema or 0, number)
            event = event_of(record)
            if event is not None:
                events.append(event)
            else:
                kind = str(record.get("event", ""))
                unknown["" if kind in KINDS else kind] += 1
        return cls(tuple(events), schema, bool(rest), dict(unknown))

    @property
    def remarks(self) -> list[str]:
        """What a reader of the events should know, a sentence each."""
        said = []
        if self.schema is not None and self.schema != SCHEMA:
            age = "a newer" if self.schema > SCHEMA else "an older"
            said.append(f"its events are of {age} version of kdmesh: schema {self.schema}, here {SCHEMA}")
        if kinds := [f"{kind} ({count})" for kind, count in self.unknown.items() if kind]:
            said.append(f"events of kinds that are not known here are left out: {', '.join(kinds)}")
        if broken := self.unknown.get(""):
            said.append(f"{broken} {'line' if broken == 1 else 'lines'} of {LOG} could not be read")
        return said


def last(log: Path) -> Event | None:
    """The last event of a log that is known, read from its end."""
    with suppress(OSError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        for line in reversed(file.read().split(b"\n")[:-1]):
            if (event := event_of(_record(line))) is not None:
                return event
    return None


def _record(line: bytes) -> dict[str, Any]:
    """The object that a line holds; an empty one where it holds none."""
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}
