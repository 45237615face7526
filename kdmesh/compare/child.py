"""A process that makes one trial: ``python -m kdmesh.compare.child``, started by :mod:`kdmesh.compare.pool`.

It reads one line of JSON, an :class:`Order`, and tells how far it is in lines of JSON. It pauses, with a checkpoint,
where it is told to by SIGINT or SIGTERM, or where whoever started it has gone: its standard input ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import IO, TYPE_CHECKING, Any

from kdmesh.contracts.run_files import LOCK
from kdmesh.files import locked

if TYPE_CHECKING:
    from kdmesh.contracts.events import Event
    from kdmesh.engine.events import Listener
    from kdmesh.engine.request import Request
    from kdmesh.errors import MeshError

EVERY = 0.5  # seconds between two reports
PATIENCE, POLL = 60.0, 0.1  # seconds that another process is waited for, and between two looks


@dataclass(frozen=True)
class Order:
    """What a trial is made from: fields of :class:`kdmesh.engine.request.Request`, as JSON has them."""

    mesh: dict[str, Any]
    at: str
    text: str | None
    beside: list[str]
    backend: str
    ray_address: str | None
    controls: bool
    strict_signals: bool
    checkpoint_seconds: float
    progress_timeout: float
    advice: str
    tested: bool = True
    report: bool = True
    store: str | None = None
    made_of: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """As one line."""
        return json.dumps(asdict(self)) + "\n"


class Report:
    """Tells on a stream how far a run is, and its notes."""

    def __init__(self, out: IO[str]) -> None:
        from kdmesh.report.live import Display

        class Silent(Display):
            """Adds stages up, and shows nothing."""

            def line(self, text: str) -> None:
                pass

            def progress(self, name: str, now: float) -> None:
                pass

        self.display, self.out, self.last = Silent(), out, 0.0

    def __call__(self, event: Event) -> None:
        """Take an event."""
        from kdmesh.contracts.events import Note, Progress

        self.display(event)
        if isinstance(event, Note):
            self.tell(note=event.text)
        elif isinstance(event, Progress) and monotonic() - self.last >= EVERY:
            self.last = monotonic()
            self.tell(done=self.display.overall.done, total=self.display.overall.total)

    def tell(self, **what: Any) -> None:
        """Write a line."""
        self.out.write(json.dumps(what) + "\n")
        self.out.flush()


def main() -> int:
    """Make the trial; returns the exit code."""
    order = Order(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_until_alone, daemon=True).start()
    out = sys.stdout
    sys.path += [folder for folder in order.beside if folder not in sys.path]
    from kdmesh.engine.experiment import Experiment
    from kdmesh.errors import MeshError
    from kdmesh.hosts.memory import keep_memory

    keep_memory()
    report = Report(out)
    try:
        with redirect_stdout(sys.stderr):
            _until_free(Path(order.at))
            Experiment(request(order, report)).run()
    except MeshError as error:
        report.tell(**failure(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def failure(error: MeshError) -> dict[str, Any]:
    """What is told of a trial that did not get to its end, and of what its user has to decide before it goes on."""
    from kdmesh.errors import RunPaused

    paused = {"paused": [error.what, error.where]} if isinstance(error, RunPaused) else {}
    return {"error": str(error), "code": error.exit_code, **paused}


def request(order: Order, *listeners: Listener) -> Request:
    """The request that an order stands for."""
    from kdmesh.engine.request import Request
    from kdmesh.spec.read import parse

    return Request(
        parse(order.mesh),
        order.backend,
        order.ray_address,
        source_text=order.text,
        beside=order.beside,
        at=Path(order.at),
        listeners=listeners,
        controls=order.controls,
        strict_signals=order.strict_signals,
        checkpoint_seconds=order.checkpoint_seconds,
        progress_timeout=order.progress_timeout,
        advice=order.advice,
        made_of=order.made_of,
        tested=order.tested,
        report=order.report,
        store=order.store,
    )


def _until_free(trial: Path) -> None:
    """Wait while the trial of a comparison that was killed writes its last checkpoint."""
    deadline = monotonic() + PATIENCE
    while locked(trial / LOCK) and monotonic() < deadline:
        sleep(POLL)


def _until_alone() -> None:
    """Pause where standard input ends: nobody waits for this trial any more."""
    if not sys.stdin.read():
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
