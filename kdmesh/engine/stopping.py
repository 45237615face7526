"""Ctrl-C and SIGTERM: the first ends the run after the running steps and a checkpoint, the second ends it at once."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.engine.run import Run


class AtOnce(KeyboardInterrupt):
    """The second interruption, or one before there was anything to go on with: nothing more is to be waited for."""


class Stopping:
    """Whom the signals reach. Before there is a ``run`` that can be continued, the first one ends at once too.

    ``finished``: there are results, and what is left is soon done, so that the first one has nothing to stop.
    """

    def __init__(self, finished: bool = False) -> None:
        self.finished = finished
        self.run: Run | None = None
        self.asked = False  # a signal asked to pause, whether or not the run still had steps to pause after

    def __call__(self, number: int, _: Any) -> None:
        """Handle a signal."""
        if self.finished:
            self.finished = False
            print(
                "\nkdmesh: the run has finished and is closing; a second signal stops at once",
                file=sys.stderr,
                flush=True,
            )
            return
        if self.run is None or self.run.pausing or self.run.folder is None:
            raise AtOnce
        self.run.pausing = self.asked = True
        print(
            "\nkdmesh: stopping after the steps now running; a second signal stops at once", file=sys.stderr, flush=True
        )


@contextmanager
def terminable() -> Iterator[None]:
    """Raise KeyboardInterrupt inside for a SIGINT, also where a shell's `&` had it ignored, and for a SIGTERM.

    In a thread other than the main one both are left as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, signal.default_int_handler) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stoppable(finished: bool = False) -> Iterator[Stopping]:
    """Handle both signals inside. In a thread other than the main one they are left as they are."""
    stopping = Stopping(finished)
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.signal(number, stopping) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
            if isinstance(handler, Stopping):  # of the whole, of which this was a part
                handler.asked = handler.asked or stopping.asked
