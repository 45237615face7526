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
- ``note`` text
- ``run_failed`` error
- ``run_finished`` seconds, folder
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Listener = Callable[[dict[str, Any]], None]


class Events:
    """The log of one run. Owned by the driver; not for several threads.

    ``path`` is the file that events are appended to, a line each, flushed at once, so that a killed run keeps them;
    None writes nothing. ``listeners`` are called in order with each event. One that raises is removed, and a `note`
    says so: who watches a run cannot end it. A listener with a ``close`` method is closed with the log.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.listeners: list[Listener] = []
        self._start = monotonic()
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")

    def emit(self, kind: str, /, **fields: Any) -> None:
        """Write an event, unless it is `progress`, and tell the listeners.

        Numbers that are not finite become null, arrays become lists, their scalars numbers, and paths become text.
        """
        event = {"event": kind, "t": round(monotonic() - self._start, 3), **plain(fields)}
        if self._file is not None and kind != "progress":
            self._file.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception as error:
                self._drop(listener, error)

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
        if self._file is not None:
            self._file.close()
            self._file = None

    def _drop(self, listener: Listener, error: Exception) -> None:
        # A `note` of the same failure may have been told from inside `emit` already, and removed this listener.
        if listener in self.listeners:
            self.listeners.remove(listener)
            name = getattr(listener, "__qualname__", type(listener).__name__)
            self.emit("note", text=f"the listener {name} failed and is removed: {type(error).__name__}: {error}")


def plain(value: Any) -> Any:
    """Return ``value`` as what JSON can hold: keys are text, and NaN and the infinities are None."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def _nothing() -> None:
    """Stand in for the ``close`` of a listener without one."""
