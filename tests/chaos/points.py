"""Deaths at named points: `exchange 7 of council, host one dies after it`.

A point counts the calls of one kind of one host, in the process that makes them: a worker dies in its own call, and the
driver, or the worker by the driver's hand, as a call is put in a queue. Who dies, dies by SIGKILL: a host, it and
another one, its whole node (with it the others there, and what they made), or the driver.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.backends import worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.backends import Session

KINDS = ("queue", "exchange", "checkpoint", "evaluation")
VICTIMS = ("driver", "host", "two", "node")
EXCHANGES = ("publish", "commit", "receive", "recall", "export_state", "take_snapshot")
CHECKPOINTS = ("save", "load")
EVALUATIONS = ("evaluate", "evaluate_consensus", "describe", "keep_best")
UNCOUNTED = ("sees", "save_agent", "save_rule")  # a run that writes no folder saves neither agents nor rules


@dataclass(frozen=True)
class Point:
    """When whom dies. ``after``: with the call made and nobody told; for the driver, with a checkpoint's parts written
    and its manifest not. ``second``: who else dies where two do.
    """

    topology: str
    kind: str
    number: int
    host: str
    victim: str
    after: bool = False
    second: str = ""

    def __str__(self) -> str:
        host, second = (name if name.startswith("host") else f"host {name}" for name in (self.host, self.second))
        who = {"host": host, "two": f"{host} and {second}", "node": f"the node of {host}", "driver": "the driver"}
        when = "as it is queued" if self.kind == "queue" or self.victim == "driver" else "before it"
        when = ("before its manifest" if self.victim == "driver" else "after it") if self.after else when
        of = f"{host} of {self.topology}" if self.victim == "driver" else self.topology
        dies = "die" if self.victim == "two" else "dies"
        return f"{self.kind} {self.number} of {of}, {who[self.victim]} {dies} {when}"


class Counts:
    """How many calls of each kind hosts were given."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self._begun: set[str] = set()

    def note(self, host: str, method: str, args: tuple[Any, ...]) -> dict[str, int]:
        """Count a call; returns its number by kind. How many chunks a lone host runs, and how many checkpoints are
        written between two, is a matter of speed: a queue counts the first chunk of a phase, and no checkpoints.
        """
        if method in UNCOUNTED:
            return {}
        crosses = method in EXCHANGES or (method == "run" and (len(args) > 1 or bool(args[0].exports)))
        kinds = ["exchange"] if crosses else []
        kinds += ["checkpoint"] if method in CHECKPOINTS else ["evaluation"] if method in EVALUATIONS else []
        if method == "begin":
            self._begun.add(host)
        if method not in ("run", *CHECKPOINTS) or crosses or (method == "run" and host in self._begun):
            kinds.append("queue")
        if method == "run":
            self._begun.discard(host)
        self.seen.update((host, kind) for kind in kinds)
        return {kind: self.seen[host, kind] for kind in kinds}


def title(method: str, args: tuple[Any, ...]) -> str:
    """A call in words: `run, step 112`."""
    return f"{method}, step {args[0].steps[0][0]}" if method == "run" else method


class Deaths:
    """The points of one run, and who has died at them: files in a folder that all processes see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points = [Point(**fields) for fields in json.loads((folder / "points.json").read_text())]
        self.counts = Counts()

    @classmethod
    def plan(cls, folder: Path, points: tuple[Point, ...]) -> Deaths:
        """Note what is to come."""
        folder.mkdir(parents=True)
        (folder / "points.json").write_text(json.dumps([asdict(point) for point in points]))
        return cls(folder)

    def happened(self) -> list[str]:
        """The calls at which somebody died."""
        return [path.read_text() for path in sorted(self.folder.glob("died-*"))]

    def due(self, number: dict[str, int], host: str, kinds: tuple[str, ...], driver: bool, after: bool) -> list[int]:
        """The points that this call is, at which nobody died yet."""
        return [
            index
            for index, point in enumerate(self.points)
            if point.host == host
            and point.kind in kinds
            and number.get(point.kind, 0) >= point.number
            and (point.victim == "driver") == driver
            and point.after == after
            and not (self.folder / f"died-{index}").exists()
        ]

    def strike(self, index: int, call: str) -> None:
        """Kill those who die at a point."""
        (self.folder / f"died-{index}").write_text(call)
        point = self.points[index]
        if point.victim == "driver":
            os.kill(os.getpid(), signal.SIGKILL)
        pids = {path.suffix[1:]: [*map(int, path.read_text().split())] for path in self.folder.glob("pids.*")}
        own, raylet = pids.pop(point.host)
        others = [pids[point.second][0]] if point.victim == "two" else []
        if point.victim == "node":
            others = [raylet, *(pid for pid, node in pids.values() if node == raylet)]
        for pid in [*others, own]:  # the last one may be this process
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Mortal(worker.Worker):
    """A worker that dies in its calls at the points of the run that is noted in its home."""

    home = ""

    def open(self, name: str, *args: Any) -> None:
        """Build the host."""
        self.name, self.deaths = name, Deaths(Path((Path(self.home) / "now").read_text()))
        (self.deaths.folder / f"pids.{name}").write_text(f"{os.getpid()} {os.getppid()}")
        super().open(name, *args)

    def call(self, sequence_number: tuple[int, int], method: str, *args: Any) -> Any:
        """Call, and die where it is time to."""
        number = self.deaths.counts.note(self.name, method, args)
        self.die(number, title(method, args), after=False)
        value = super().call(sequence_number, method, *args)
        self.die(number, title(method, args), after=True)
        return value

    def die(self, number: dict[str, int], call: str, after: bool) -> None:
        """Die, if this is a point."""
        for index in self.deaths.due(number, self.name, KINDS[1:], driver=False, after=after):
            self.deaths.strike(index, call)


@contextmanager
def mortal(session: Session, home: Path) -> Iterator[None]:
    """Inside, the session has workers that die, and afterwards none of these."""
    backend = session.backend  # imports ray, with an embedded one's settings
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    home.mkdir(parents=True, exist_ok=True)
    workers, usual = backend._workers, worker.Worker  # type: ignore[attr-defined]
    _kill(workers)
    Mortal.home = str(home)
    worker.Worker = Mortal  # type: ignore[misc]
    try:
        yield
    finally:
        worker.Worker = usual  # type: ignore[misc]
        _kill(workers)


def _kill(workers: dict[Any, list[Any]]) -> None:
    import ray

    for actor in [actor for group in workers.values() for actor in group]:
        ray.kill(actor)
    workers.clear()


@contextmanager
def deaths(session: Session, home: Path, name: str, points: tuple[Point, ...]) -> Iterator[Deaths]:
    """Inside, a run's hosts die at these points: in a session that is :func:`mortal`."""
    planned = Deaths.plan(home / name, points)
    (home / "now").write_text(str(planned.folder))
    with watched(session.backend, planned):
        yield planned


@contextmanager
def watched(backend: Any, planned: Deaths) -> Iterator[None]:
    """Inside, the driver strikes where it puts a call in a queue; dies, where a point says so."""
    usual = backend.call

    def call(host: str, method: str, *args: Any, results: int = 1) -> Any:
        made = usual(host, method, *args, results=results)
        number = planned.counts.note(host, method, args)
        for index in planned.due(number, host, KINDS[:1], driver=False, after=False):
            planned.strike(index, title(method, args))
        for index in planned.due(number, host, KINDS, driver=True, after=False):
            planned.strike(index, title(method, args))
        return made

    backend.call = call
    try:
        yield
    finally:
        del backend.call
