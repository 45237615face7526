"""What calls of offered things took on a host, by kind and name, where a run asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One offer on one host: how often it was called, and the seconds that its calls took, one within another too."""

    kind: str
    name: str
    calls: int
    seconds: float


class Profile:
    """Wraps calls to count and time them. Nothing is wrapped where there is no profile.

    The backward pass is not in it, and of a GPU, which works after its kernels were launched, the launches alone.
    """

    def __init__(self) -> None:
        self._spent: dict[tuple[str, str], list[float]] = {}

    def timed(self, kind: str, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted."""
        spent, now = self._spent.setdefault((kind, name), [0, 0.0]), time.perf_counter

        def counted(*args: Any, **more: Any) -> Any:
            start = now()
            try:
                return call(*args, **more)
            finally:
                spent[0] += 1
                spent[1] += now() - start

        return counted

    def rows(self) -> list[Row]:
        """What was counted so far."""
        return [Row(kind, name, int(calls), seconds) for (kind, name), (calls, seconds) in self._spent.items()]
