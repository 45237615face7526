"""While Ray starts: it has time, and a signal waits."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {
    "RAY_worker_niceness": "0",  # by Ray's own 15 a busy machine gives hosts next to nothing
    # On a busy machine a start may take minutes, and Ray's own 30 to 60 seconds end with processes killed and started
    # again. For its control store Ray waits this long also where that is dead.
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "600000",
}
"""Ray's settings for an embedded one, where the environment does not say otherwise; read as its processes start."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a signal wait until Ray is up, the second one excepted: what a start left half done is hard to find."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _: Any) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit:  # from the SIGTERM handler that Ray puts in place of ours
        came.append(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        if hasattr(signal, "alarm"):
            signal.alarm(0)  # Ray's C++ handler, if it was first to see a SIGTERM, aborts the process in 3 s
        raise KeyboardInterrupt
