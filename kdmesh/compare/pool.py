"""Whole runs side by side, each in a process of its own."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdmesh.engine.stopping import terminable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kdmesh.compare.child import Order

PATIENCE = 60.0  # seconds that a process which was told to end has left
DRAIN = 2.0  # seconds in which what a process has said is still read after its end
AGAIN = 1  # times that a trial is made again whose process something else killed
LINES = 30  # of what a process said to stderr, kept for its error


@dataclass
class Running:
    """A process that makes a trial."""

    trial: Any
    order: Order
    process: subprocess.Popen[str]
    done: int = 0
    total: int = 0
    error: str = ""
    code: int = 1
    paused: list[str] | None = None
    said: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))


class Pool:
    """Makes trials, so many at a time.

    ``told(trial, what)`` hears of each: ``{"begun": True}``, ``{"done": steps, "total": steps}``, ``{"note": text}``,
    and at last ``{"ended": True, "error": text}``, of which an empty error says that the trial is whole; one that has
    ``{"paused": [what, where]}`` too stands still for what its user has to decide.
    A trial whose process something else killed, as a kernel that is short of memory does, is made once more, from its
    checkpoint.
    """

    command = (sys.executable, "-m", "kdmesh.compare.child")

    def __init__(self, workers: int, told: Callable[[Any, dict[str, Any]], None]) -> None:
        self.workers, self.told = workers, told
        self.running: dict[Any, Running] = {}
        self.waiting: deque[tuple[Any, Order]] = deque()
        self._killed: Counter[Any] = Counter()
        self._heard: queue.Queue[tuple[Running, dict[str, Any] | None]] = queue.Queue()

    @terminable()
    def run(self, orders: Iterable[tuple[Any, Order]]) -> None:
        """Make all. A SIGINT or SIGTERM is handed on to every process, which writes a checkpoint; then it is raised."""
        self.waiting.extend(orders)
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.workers:
                    self._begin(*self.waiting.popleft())
                one, what = self._heard.get()
                if self.running.get(one.trial) is not one:
                    continue  # a late word of a process that has ended
                if what is not None:
                    self._hear(one, what)
                else:
                    self._end(one)
        except BaseException:
            self._stop()
            raise

    def _begin(self, trial: Any, order: Order) -> None:
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a Ctrl-C at the terminal reaches us, and we hand it on, once
        )
        one = self.running[trial] = Running(trial, order, process)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it died as it started: its end says so
            process.stdin.write(order.line())
            process.stdin.flush()
        readers = [threading.Thread(target=read, args=(one,), daemon=True) for read in (self._listen, self._keep)]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._wait, args=(one, readers), daemon=True).start()
        self.told(trial, {"begun": True})

    def _listen(self, one: Running) -> None:
        import json

        assert one.process.stdout is not None
        for line in one.process.stdout:
            with suppress(ValueError):  # what is no report is none of ours
                what = json.loads(line)
                if isinstance(what, dict):
                    self._heard.put((one, what))

    def _wait(self, one: Running, readers: Sequence[threading.Thread]) -> None:
        """Tell of the end of a process itself: what it started, as Ray, may outlive it and keep its pipes open."""
        one.process.wait()
        for reader in readers:
            reader.join(DRAIN)
        self._heard.put((one, None))

    @staticmethod
    def _keep(one: Running) -> None:
        assert one.process.stderr is not None
        one.said.extend(line.rstrip() for line in one.process.stderr)

    def _hear(self, one: Running, what: dict[str, Any]) -> None:
        if "error" in what:
            one.error, one.code, one.paused = str(what["error"]), int(what.get("code", 1)), what.get("paused")
            return
        if "done" in what:
            one.done, one.total = int(what["done"]), int(what.get("total") or 0)
        self.told(one.trial, what)

    def _end(self, one: Running) -> None:
        trial = one.trial
        del self.running[trial]
        code = one.process.returncode
        if code != 0 and not one.error:
            last = next((line for line in reversed(one.said) if line.strip()), "it said nothing")
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            one.error = f"its process {how}: {last}"
            if code == -signal.SIGKILL and self._killed[trial] < AGAIN:
                self._killed[trial] += 1
                self.waiting.appendleft((trial, one.order))
                self.told(trial, {"note": f"{trial}: its process {how}; it is made again, from its checkpoint"})
                return
        paused = {} if one.paused is None else {"paused": one.paused}
        self.told(trial, {"ended": True, "error": one.error, "code": one.code, **paused})

    def _stop(self) -> None:
        """Have every process write a checkpoint and end; a second interruption ends them at once."""
        try:
            for one in self.running.values():
                with suppress(ProcessLookupError):
                    one.process.send_signal(signal.SIGINT)
            for one in self.running.values():
                with suppress(subprocess.TimeoutExpired):
                    one.process.wait(PATIENCE)
        finally:
            for one in self.running.values():
                one.process.kill()
                one.process.wait()
