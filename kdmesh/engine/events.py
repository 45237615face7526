"""The log of a run: each event goes to ``events.jsonl`` and to listeners (the live display, observer hooks).

Their kinds and fields are classes of :mod:`kdmesh.contracts.events`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from kdmesh.contracts.events import (
    SCHEMA,
    Evaluated,
    Event,
    Note,
    Progress,
    RoundFinished,
    StageFinished,
    StageResumed,
    read,
)
from kdmesh.errors import MeshError, RunFailed
from kdmesh.files import LONE, lock, plain, remedy, to_json
from kdmesh.report.log import Log

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

Listener = Callable[[Event], None]


class Events:
    """The log of one run. Owned by the driver; not for several threads.

    ``path`` is the file that events are appended to, a line each, flushed at once, so that a killed run keeps them;
    None writes nothing. ``listeners`` are called in order with each event. One that raises is removed, and a `note`
    says so: who watches a run cannot end it. A listener with a ``close`` method is closed with the log. While a log is
    open no other process opens it; a run's whole folder is held by :mod:`kdmesh.engine.lock`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.listeners: list[Listener] = []
        self._start = monotonic()
        self._file = None
        self._fresh = True  # nothing was written yet: the first line has the schema
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", errors=LONE)
            if not lock(self._file):
                self._shut()
                raise MeshError(
                    "another process is using this run's folder",
                    file=str(path.parent),
                    instead="wait until it ends, or stop it",
                )
            if cut := _close_last_line(path):
                self.emit(Note(f"the log had been cut within its last line, which was: {cut}"))

    def emit(self, event: Event) -> None:
        """Set an event's time, write it, unless it is `progress`, and tell the listeners.

        They are given what a reader of the file gets: numbers that are not finite become None, arrays become lists,
        their scalars numbers, and paths become text.
        """
        record: dict[str, Any] = plain({**event.record(), "t": round(monotonic() - self._start, 3)})
        if self._file is not None and not isinstance(event, Progress):
            self._write(to_json({"schema": SCHEMA, **record} if self._fresh else record) + "\n")
            self._fresh = False
        as_read = read(record)
        assert as_read is not None
        self.tell(as_read)

    def tell(self, event: Event) -> None:
        """Tell the listeners of an event, which another log may have written."""
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception as error:
                self._drop(listener, error)

    def _write(self, line: str) -> None:
        """RunFailed where the disk takes no more; there is no log from then on."""
        assert self._file is not None
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            name = self._file.name
            self._shut()
            raise RunFailed(
                f"the log of events could not be written: {error.strerror}",
                file=name,
                instead=remedy(error) or "free disk space, or give the right to write there",
            ) from error

    def _shut(self) -> None:
        """Close the file, also where it cannot take what is left to write."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def close(self) -> None:
        """Close the listeners and the file. Closing twice is harmless."""
        while self.listeners:
            listener = self.listeners[0]
            try:
                getattr(listener, "close", _nothing)()
            except Exception as error:
                self._drop(listener, error)
            else:
                self.listeners.remove(listener)
        self._shut()

    def _drop(self, listener: Listener, error: Exception) -> None:
        # A `note` of the same failure may have been told from inside `emit` already, and removed this listener.
        if listener in self.listeners:
            self.listeners.remove(listener)
            name = getattr(listener, "__qualname__", type(listener).__name__)
            self.emit(Note(f"the listener {name} failed and is removed: {type(error).__name__}: {error}"))


def progressed(path: Path) -> set[str]:
    """The stages of which a log tells more than that they began; each had written a checkpoint before that."""
    return {
        event.stage
        for event in Log.read(path).events
        if isinstance(event, StageResumed | Evaluated | RoundFinished | StageFinished)
    }


def _close_last_line(path: Path) -> str:
    """Take a last line that a kill has cut away from a log, and return it; nothing where the log is whole."""
    if not path.is_file():
        return ""
    with path.open("r+b") as log:
        content = log.read()
        whole = content.rfind(b"\n") + 1
        if cut := content[whole:]:
            log.truncate(whole)
        return cut.decode("utf-8", LONE)


def _nothing() -> None:
    """Stand in for the ``close`` of a listener without one."""
