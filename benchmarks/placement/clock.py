"""The clock of the simulation: jobs that share cores, delays, and servers that do one job after the other."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable

Then = Callable[[], None]


class Cores:
    """Time. Jobs at work share the cores evenly: every job's work goes on at the same rate. Delays take no core."""

    def __init__(self, cores: float) -> None:
        self.cores, self.now, self._worked = cores, 0.0, 0.0
        self._jobs: list[tuple[float, int, Then]] = []  # by the work that has been done on each job when one ends
        self._delays: list[tuple[float, int, Then]] = []
        self._numbers = itertools.count()

    def work(self, seconds: float, then: Then) -> None:
        """Begin a job."""
        heapq.heappush(self._jobs, (self._worked + seconds, next(self._numbers), then))

    def delay(self, seconds: float, then: Then) -> None:
        """Begin a delay."""
        heapq.heappush(self._delays, (self.now + seconds, next(self._numbers), then))

    def run(self) -> None:
        """Until nothing is left to do."""
        while self._jobs or self._delays:
            slow = max(1.0, len(self._jobs) / self.cores)
            end = self.now + (self._jobs[0][0] - self._worked) * slow if self._jobs else math.inf
            if self._delays and self._delays[0][0] <= end:
                until, _, then = heapq.heappop(self._delays)
                self._worked += (until - self.now) / slow
                self.now = until
            else:
                self._worked, _, then = heapq.heappop(self._jobs)
                self.now = end
            then()


class Server:
    """Does one job after the other; ``busy``: seconds by what for."""

    def __init__(self, cores: Cores) -> None:
        self.cores, self.busy = cores, Counter()
        self._queue: deque[tuple[float, Then]] = deque()

    def add(self, seconds: dict[str, float], then: Then) -> None:
        """Queue a job."""
        self.busy.update(seconds)
        self._queue.append((sum(seconds.values()), then))
        if len(self._queue) == 1:
            self._next()

    def _next(self) -> None:
        self.cores.work(self._queue[0][0], self._end)

    def _end(self) -> None:
        then = self._queue.popleft()[1]
        if self._queue:
            self._next()
        then()
