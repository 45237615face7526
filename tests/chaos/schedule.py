"""The schedule: points drawn by a seed from what unbroken runs call."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

from points import KINDS, Counts, Point

from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse, read_mesh

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.spec import MeshSpec

SEED = 20261124
COUNTS = {"epochs": 2, "rounds": 2, "digest_epochs": 1}
MESHES = ("deep-mutual", "ensemble", "council", "stale-codistillation", "mean-teacher", "ensemble-then-mutual")
SHARES = {"driver": 10, "host": 22, "two": 10, "node": 8}  # of fifty


class Call(NamedTuple):
    """One counted call of an unbroken run."""

    host: str
    method: str
    kind: str
    number: int


class Unbroken(NamedTuple):
    """What a run calls, and what deaths must not change of it."""

    calls: list[Call]
    outcome: dict[str, Any]


class Recorder(InlineBackend):
    """An inline backend, which makes the calls that Ray's makes, and notes them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._counts = Counts()

    def call(self, host: str, method: str, *args: Any, results: int = 1) -> Any:
        """Run the call."""
        number = self._counts.note(host, method, args)
        self.calls += [Call(host, method, kind, count) for kind, count in number.items()]
        return super().call(host, method, *args, results=results)


def unbroken(name: str, folder: Path) -> Unbroken:
    """Run a topology inline, with a folder for its checkpoints."""
    with Session("inline") as session:
        recorder = session._backend = Recorder()
        summary, _, _ = run_once(Request(mesh(name), "inline", out=folder), session=session)
        return Unbroken(recorder.calls, outcome(summary))


def draw(runs: dict[str, Unbroken], seed: int = SEED, shares: dict[str, int] = SHARES) -> list[Point]:
    """Points, no two alike: victims by their shares, and for each the kinds and topologies in turn; of a kind's methods
    each is as likely as any other.
    """
    rng, found = random.Random(seed), dict[Point, None]()
    names: list[str] = []
    for victim, share in shares.items():
        for number in range(share):
            kind = KINDS[number % len(KINDS)]
            while True:
                names = names or rng.sample(list(runs), len(runs))
                name = names.pop()
                point = _one(rng, name, runs[name].calls, kind, victim)
                if point is not None and point not in found:
                    found[point] = None
                    break
    return list(found)


def _one(rng: random.Random, name: str, calls: list[Call], kind: str, victim: str) -> Point | None:
    """A point of a topology; None if it has none of the kind, or no two hosts to die."""
    there = [call for call in calls if call.kind == kind]
    hosts = sorted({call.host for call in calls})
    if not there or (victim == "two" and len(hosts) < 2):
        return None
    method = rng.choice(sorted({call.method for call in there}))
    call = rng.choice([call for call in there if call.method == method])
    may = kind in (("checkpoint",) if victim == "driver" else KINDS[1:])  # die after it
    second = rng.choice([host for host in hosts if host != call.host]) if victim == "two" else ""
    return Point(name, kind, call.number, call.host, victim, may and rng.random() < 0.5, second)


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
