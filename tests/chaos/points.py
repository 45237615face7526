"""Deaths at chosen points: a worker that kills itself at its host's n-th call of a method, before or after it."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from kdmesh.backends import worker
from kdmesh.spec.read import parse, read_mesh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.backends import Session
    from kdmesh.spec import MeshSpec

COUNTS = {"epochs": 2, "rounds": 2, "digest_epochs": 1}
MESHES = ("deep-mutual", "ensemble", "council", "stale-codistillation", "mean-teacher", "ensemble-then-mutual")


@dataclass(frozen=True)
class Point:
    """Where a host dies."""

    host: str
    method: str
    number: int
    after: bool

    def __str__(self) -> str:
        return f"{self.host} {'after' if self.after else 'before'} {self.method} {self.number}"


class Mortal(worker.Worker):
    """A worker that notes its calls, and dies at the points of :func:`deaths`, once at each."""

    folder = ""
    points: tuple[Point, ...] = ()

    def open(self, name: str, blueprint: Any, source: Any) -> None:
        """Build the host."""
        self.name, self.seen = name, Counter()
        super().open(name, blueprint, source)

    def call(self, method: str, *args: Any) -> Any:
        """Call, and die where it is time to."""
        self.seen[method] += 1
        self.die(method, after=False)
        value = super().call(method, *args)
        with (Path(self.folder) / "calls").open("a") as file:
            file.write(f"{self.name} {method}\n")
        self.die(method, after=True)
        return value

    def die(self, method: str, after: bool) -> None:
        """Die, if this is a point at which nobody died yet."""
        for index, point in enumerate(self.points):
            mark = Path(self.folder) / f"died-{index}"
            here = (point.host, point.method, point.after) == (self.name, method, after)
            if here and self.seen[method] >= point.number and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@contextmanager
def deaths(folder: Path, points: tuple[Point, ...]) -> Iterator[None]:
    """Inside, new workers die at these points."""
    folder.mkdir(parents=True)
    usual = worker.Worker
    Mortal.folder, Mortal.points = str(folder), points
    worker.Worker = Mortal  # type: ignore[misc]
    try:
        yield
    finally:
        worker.Worker = usual  # type: ignore[misc]


@contextmanager
def own_actors(session: Session) -> Iterator[None]:
    """Inside, a session has no actors of before, and afterwards none of these."""
    workers = session.backend._workers  # type: ignore[attr-defined]
    _kill(workers)
    try:
        yield
    finally:
        _kill(workers)


def _kill(workers: dict[Any, list[Any]]) -> None:
    for actor in [actor for group in workers.values() for actor in group]:
        ray.kill(actor)
    workers.clear()


def calls(folder: Path) -> Counter[tuple[str, str]]:
    """How often each host was called by each method."""
    return Counter(tuple(line.split()) for line in (folder / "calls").read_text().splitlines())  # type: ignore[misc]


def draw(seen: Counter[tuple[str, str]], count: int, seed: int) -> list[Point]:
    """So many points, each method as likely as any other; fewer where there are not so many."""
    rng = random.Random(seed)
    methods = sorted({method for _, method in seen})
    found: dict[Point, None] = {}
    for _ in range(1000 * count):
        if len(found) == count:
            break
        method = rng.choice(methods)
        host, number = rng.choice(sorted((host, n) for (host, name), n in seen.items() if name == method))
        found[Point(host, method, rng.randint(1, number), rng.random() < 0.5)] = None
    return list(found)


def mesh(name: str) -> MeshSpec:
    """A bundled topology in short, its agents apart."""

    def shortened(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: min(item, COUNTS[key]) if isinstance(item, int) and key in COUNTS else shortened(item)
                for key, item in value.items()
            }
        return [shortened(item) for item in value] if isinstance(value, list) else value

    fields = shortened(read_mesh(name).dump())
    return parse({**fields, "placement": fields["placement"] if name == "council" else "spread"})


def outcome(summary: dict[str, Any]) -> dict[str, Any]:
    """What deaths must not change."""
    agents = {name: (agent["weights_sha256"], agent["metrics"]) for name, agent in summary["agents"].items()}
    return {"agents": agents, "rounds": summary["rounds"]}
