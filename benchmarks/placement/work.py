"""What each call to a host computes: the engine itself, with every host in one process, and a clock around each call.

Ray takes no part in it. Two actors do the same at the same time, so that all cores are busy, as they are in a mesh.
It is measured for 2, 3 and 4 hosts; what a call takes with more of them follows from how it grows from 2 to 4.
Means, not medians: a run takes the sum of its calls, and these are fast or slow by turns on a machine that is shared.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.placement import meshes as flow
from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.engine.teach import WINDOW

HOSTS = 2, 3, 4
STRATEGIES = "ensemble", "mutual", "rounds"
KINDS = {"cnn": flow.CNN, "mlp": flow.MLP}
WINDOWS = {"cnn": 3, "mlp": 20}
BATCH, ROUND = 16, 32  # samples; steps of a phase of a round
ROUNDS = {"cnn": 3, "mlp": 5}  # old checkpoints are removed from the second round on
COMPUTES = "main", "first", "between", "last", "own", "digest", "publish"  # forwards and updates
REST = 0.002  # seconds that a host waits before a call, here as on Ray: its caches are cold then
GROWS = "between", "last", "digest", "receive", "evaluate_consensus", "save", "keep", "turn"  # with the number of hosts


class Timed(InlineBackend):
    """Notes the seconds of every call, by what it is and the host, and those of the driver between two waits."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._phase, self._since, self._inside, self._called = "", 0.0, 0.0, [""]

    def call(self, host: str, method: str, *args: Any, results: int = 1) -> Any:
        """Run the call."""
        before = time.perf_counter()
        time.sleep(REST)
        start = time.perf_counter()
        made = super().call(host, method, *args, results=results)
        end = time.perf_counter()
        self.taken[self._what(method, args), host].append(end - start)
        self._inside += end - before
        self._called.append(method)
        return made

    def get(self, handles: Sequence[Any]) -> list[Any]:
        """Note what the driver did since the last time: after a checkpoint's parts, it completes it; where it submits
        fragments it has cut a window, which is measured elsewhere.
        """
        before, *called = self._called
        if called and "run" not in called:
            own = time.perf_counter() - self._since - self._inside
            self.taken["keep" if before == "save" else "turn", ""].append(own)
        self._since, self._inside, self._called = time.perf_counter(), 0.0, self._called[-1:]
        return super().get(handles)

    def _what(self, method: str, args: tuple[Any, ...]) -> str:
        """A call in a word. Of fragments: a window of a phase in which nothing comes, by the phase's name; the first
        forward of a window; what stands between two exchanges; what comes after the last one.
        """
        if method == "begin":
            self._phase = args[1]
        if method != "run":
            return method
        fragment, *imports = args
        if imports:
            return "between" if fragment.exports else "last"
        return self._phase if fragment.steps[0][0] in fragment.complete else "first"


def drawn(kind: str, family: str, hosts: int) -> dict:
    """The mesh of a strategy on so many hosts."""
    model = KINDS[family]
    if kind == "rounds":
        return flow.parties(hosts, BATCH, model, ROUNDS[family])
    return flow.taught(hosts - 1, BATCH, model) if kind == "ensemble" else flow.peers(hosts, BATCH, model)


def calls(kind: str, family: str, hosts: int) -> dict[str, list[float]]:
    """The seconds of every call in a run of a mesh by its kind, host by host, without the first one of each."""
    steps = ROUND if kind == "rounds" else WINDOW * WINDOWS[family]
    session, data = Session("inline"), flow.table(family, steps * BATCH)
    session._backend = timed = Timed()
    with tempfile.TemporaryDirectory() as out:  # with a folder it writes checkpoints, as a run on Ray does
        run_once(Request(flow.placed(drawn(kind, family, hosts), "spread"), table=data, out=Path(out)), session=session)
    found = defaultdict(list)
    for (what, _), taken in timed.taken.items():
        found[what] += taken[1:] or taken
    return dict(found)


def together(one: dict[str, list[float]], other: dict[str, list[float]]) -> dict[str, list[float]]:
    """Of each kind of call that two actors did at the same time: its mean seconds, and those of the slower of both."""
    both = {what: list(zip(one[what], other[what], strict=True)) for what in one}
    return {what: [statistics.mean(map(of, pairs)) for of in (statistics.mean, max)] for what, pairs in both.items()}


@dataclass(frozen=True)
class Work:
    """Seconds of every kind of call of one strategy: of one host, and for every further one more.

    ``uneven``: how much longer the slower of two takes than both in the mean; none where machines are equally fast.
    """

    alone: dict[str, float]
    more: dict[str, float]
    uneven: dict[str, float] = field(default_factory=dict)

    def of(self, what: str, host: int, turn: int = 0) -> float:
        """A call of one of several hosts that are waited for together; they take turns in being the slower one."""
        uneven = self.uneven.get(what, 1.0)
        return self.alone[what] * (uneven if (host + turn) % 2 else 2 - uneven)

    def more_of(self, what: str, hosts: int) -> float:
        """What the others add to a call."""
        return self.more.get(what, 0.0) * (hosts - 1)

    def slower(self, factor: float) -> Work:
        """The same with another model, whose forwards and updates take so many times as long."""
        return replace(
            self, alone={what: took * (factor if what in COMPUTES else 1.0) for what, took in self.alone.items()}
        )


def work(found: Callable[[str, str, int], dict[str, list[float]]], kind: str, family: str) -> Work:
    """``found``: what :func:`together` gave. What a host more adds, a loss of ten classes or a publication that is
    read, does not depend on the model, and is lost in the noise of a large one's steps: it is told by the small one.
    """
    small, own = ({hosts: found(kind, name, hosts) for hosts in HOSTS} for name in ("mlp", family))
    more, alone, uneven = {}, {}, {}
    for what in own[HOSTS[0]]:
        if what in GROWS:
            more[what] = max(0.0, (small[HOSTS[-1]][what][0] - small[HOSTS[0]][what][0]) / (HOSTS[-1] - HOSTS[0]))
        alone[what] = max(0.0, statistics.mean(own[h][what][0] - more.get(what, 0.0) * (h - 1) for h in HOSTS))
        uneven[what] = statistics.mean(own[h][what][1] / own[h][what][0] for h in HOSTS)
    return Work(alone, more, uneven)
