"""What happens in a run, told once: to ``events.jsonl`` and to whoever listens (the live display, observer hooks).

Kinds and fields, beside ``event`` and ``t``, the seconds since the start:

- ``placed`` hosts {host: [agents]}, lines: the arithmetic of `placement: auto` or `threads: auto`
- ``hosts_opening`` backend, hosts {host: [agents]}
- ``run_started`` name, seed, backend, hosts {host: [agents]}, stages [{stage, agents, steps}]
- ``run_resumed`` the same, of a run that goes on
- ``stage_started`` stage, agents, steps
- ``stage_resumed`` the same, from a checkpoint
- ``progress`` stage, done, steps, losses {agent: loss}; told to listeners, not written
- ``evaluated`` stage, agent, stream, epoch, metrics {accuracy, loss, ece}
- ``round_finished`` stage, round, rounds, metrics {agreement, churn, consensus, gain, accuracy}
- ``stage_finished`` stage, reason, seconds
- ``host_lost`` host, error
- ``dropped`` agents, at {stage: checkpoint}: who the run goes on without, and from where
- ``note`` text, checked: whether it was known before the run
- ``stage_finished_before`` stage: of a run that goes on, a stage with nothing left to do
- ``run_failed`` error, interrupted: whether somebody asked for it
- ``run_finished`` seconds, folder
- ``part_started`` part, number, parts, behind, ahead: of a run with several seeds or controls, the one that begins, and
  the steps of the others, before and after it
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, RunFailed
from kdmesh.files import LONE, lock, plain, remedy, to_json

if TYPE_CHECKING:
    from pathlib import Path

LOG = "events.jsonl"  # in a run's folder
Listener = Callable[[dict[str, Any]], None]


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
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", errors=LONE)
            if not lock(self._file):
                self._shut()
                raise MeshError(
                    "another process is at work on this run",
                    file=str(path.parent),
                    instead="wait until it has ended, or end it",
                )
            if cut := _close_last_line(path):
                self.emit("note", text=f"the log had been cut within its last line, which was: {cut}")

    def emit(self, kind: str, /, **fields: Any) -> None:
        """Write an event, unless it is `progress`, and tell the listeners.

        Numbers that are not finite become null, arrays become lists, their scalars numbers, and paths become text.
        """
        event = {"event": kind, "t": round(monotonic() - self._start, 3), **plain(fields)}
        if self._file is not None and kind != "progress":
            self._write(to_json(event) + "\n")
        self.tell(event)

    def tell(self, event: dict[str, Any]) -> None:
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
                instead=remedy(error) or "make room, or give rights",
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
            self.emit("note", text=f"the listener {name} failed and is removed: {type(error).__name__}: {error}")


def progressed(path: Path) -> set[str]:
    """The stages that have got on since they began, by a log; each had a checkpoint before that."""
    found = set()
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError, AttributeError):
            event = json.loads(line)
            if event.get("event") in ("stage_resumed", "evaluated", "round_finished", "stage_finished"):
                found.add(str(event.get("stage")))
    return found


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
