"""A discrete-event simulation of a driver and its hosts: calls in order, results that cross, cores that are shared.

The driver is a generator: it yields a :class:`Call` to submit it, a list of calls to wait for them, seconds to work,
None for a mark in time, a :class:`Group` for a mark when that is done.
What a job costs and who does it: see :class:`Costs`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.placement.clock import Cores, Server

INLINE = 100 * 1024  # bytes up to which Ray hands a result over through the driver's process
BUSY = 0.0, 0.001, 0.004, 0.016  # seconds of computing, of which each probed call takes one of these
Wakes = tuple[tuple[float, ...], ...]  # by hosts (2, 3, 4), then by BUSY


@dataclass(frozen=True)
class Costs:
    """Seconds, as measured by probe.py; ``network``: bytes a second into or out of a machine, infinite on one."""

    submit: float  # the driver's Python, a call
    submit_arg: float  # and for each reference among its arguments
    io: float  # the driver's other threads, a call
    io_arg: float
    call: float  # a host's process, a call
    arg: float
    hop: float  # from the last result that a call needs to its start, where cores are idle: a delay
    wake: Wakes  # and so much more where hosts share cores, and who wakes waits for one
    byte: float  # of a large value that crosses, on one machine
    answer: float  # from the last result that the driver waits for to its going on: a delay
    pushed: Wakes  # and so much more where hosts share cores, and one of them is late
    wait: float  # the driver waits for results, all at once
    wait_each: float  # and for each of them
    cut: float  # the driver cuts a window: an op of a step
    cut_edge: float  # and an exchange between two hosts
    sum: float  # the driver sums a byte of a checkpoint
    network: float = math.inf


def between(delays: Wakes, hosts: int, seconds: float) -> float:
    """The delay where so many hosts compute for so long: between what was measured, and never beyond."""
    row = delays[min(hosts, 4) - 2] if hosts > 1 else (0.0,) * len(BUSY)
    for (low, less), (high, more) in pairwise(zip(BUSY, row, strict=True)):
        if seconds < high:
            return less + (more - less) * (seconds - low) / (high - low)
    return row[-1]


class Group:
    """Calls that others wait for together."""

    def __init__(self) -> None:
        self.left = 0
        self._then: list[Callable[[], None]] = []

    def after(self, then: Callable[[], None]) -> None:
        """Run ``then`` when all are done."""
        if self.left:
            self._then.append(then)
        else:
            then()

    def done(self, calls: int = 1) -> None:
        """So many more are done."""
        self.left -= calls
        if not self.left:
            for then in self._then:
                then()
            self._then.clear()


@dataclass(eq=False)
class Call:
    """A call to a host that computes for so many seconds; ``args`` results of ``size`` bytes come with it."""

    host: int
    seconds: float
    needs: Group | None = None
    args: int = 0
    size: float = 0
    combine: float = 0.0  # seconds more, spent on those results
    done: Group = field(default_factory=Group)
    arrived: bool = False


class Mesh:
    """A driver and ``hosts``; ``cores``: shared by all of them, infinite where each has a machine of its own."""

    def __init__(self, costs: Costs, hosts: int, cores: float = math.inf) -> None:
        self.costs, self.cores = costs, Cores(cores)
        self.driver, self.io, self.port = (Server(self.cores) for _ in range(3))
        self.hosts = [Server(self.cores) for _ in range(hosts)]
        self.ports = [Server(self.cores) for _ in range(hosts)]
        self._waiting: list[deque[Call]] = [deque() for _ in range(hosts)]
        self._running = [False] * hosts
        self.marks: list[float] = []

    def run(self, driver: Generator[Call | list[Call] | tuple[str, float] | Group | None]) -> None:
        """Simulate the driver to its end, and all that it submitted."""
        self._advance(driver)
        self.cores.run()

    def _advance(self, driver: Generator) -> None:
        costs = self.costs
        for item in driver:
            if item is None:
                self.marks.append(self.cores.now)
                continue
            if isinstance(item, Group):
                item.after(lambda: self.marks.append(self.cores.now))
                continue
            again = lambda: self._advance(driver)  # noqa: E731
            if isinstance(item, Call):
                item.done.left += 1
                submit = {"submit": costs.submit + costs.submit_arg * item.args}
                self.driver.add(submit, lambda call=item: (self._submitted(call), self._advance(driver)))
            elif isinstance(item, tuple):
                self.driver.add(dict([item]), again)
            else:
                wait = {"wait": costs.wait + costs.wait_each * len(item)}
                answer = costs.answer
                if self.cores.cores < math.inf:
                    hosts, seconds = {call.host for call in item}, max(call.seconds + call.combine for call in item)
                    answer += between(costs.pushed, len(hosts), seconds)
                then = lambda wait=wait, again=again: self.driver.add(wait, again)  # noqa: E731
                all_of(item).after(lambda answer=answer, then=then: self.cores.delay(answer, then))
            return

    def _submitted(self, call: Call) -> None:
        self._waiting[call.host].append(call)
        if call.needs is None:
            self._resolved(call)
        else:
            call.needs.after(lambda: self._resolved(call))

    def _resolved(self, call: Call) -> None:
        """What the call needs is there: it goes to its host, small values with it, large ones from host to host."""
        costs, size = self.costs, call.args * call.size
        port = self.port if call.size <= INLINE else self.ports[call.host]
        cross = {"network": size / costs.network}
        shared = call.needs is not None and self.cores.cores < math.inf
        delay = costs.hop + (between(costs.wake, len(self.hosts), call.seconds) if shared else 0.0)
        hop = lambda: self.cores.delay(delay, lambda: self._arrived(call))  # noqa: E731
        then = (lambda: port.add(cross, hop)) if size and costs.network < math.inf else hop
        self.io.add({"io": costs.io + costs.io_arg * call.args}, then)

    def _arrived(self, call: Call) -> None:
        call.arrived = True
        self._next(call.host)

    def _next(self, host: int) -> None:
        """Start the host's next call, if it is its turn."""
        queue = self._waiting[host]
        if self._running[host] or not queue or not queue[0].arrived:
            return
        call, costs = queue.popleft(), self.costs
        self._running[host] = True
        size = call.args * call.size if call.size > INLINE else 0
        read = costs.call + costs.arg * call.args + size * costs.byte
        self.hosts[host].add(
            {"compute": call.seconds, "combine": call.combine, "read": read}, lambda: self._ended(call)
        )

    def _ended(self, call: Call) -> None:
        self._running[call.host] = False
        self._next(call.host)
        call.done.done()


def all_of(calls: list[Call]) -> Group:
    """A group that is done when all these are."""
    whole = Group()
    for group in dict.fromkeys(call.done for call in calls):
        whole.left += 1
        group.after(whole.done)
    return whole
