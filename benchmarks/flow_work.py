"""What each call to a host computes: the engine itself, with every host in one process, and a clock around each call.

Ray takes no part in it. Two actors do the same at the same time, so that all cores are busy, as they are in a mesh.
It is measured for 2, 3 and 4 hosts; what a call takes with more of them follows from how it grows from 2 to 4.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flow_mesh as flow

from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.launch import Request, run_once
from kdmesh.engine.teach import WINDOW

HOSTS = 2, 3, 4
STRATEGIES = "ensemble", "mutual", "rounds"
KINDS = {"cnn": flow.CNN, "mlp": flow.MLP}
WINDOWS = {"cnn": 3, "mlp": 8}
BATCH, ROUND = 16, 32  # samples; steps of a lesson of a round
ROUNDS = {"cnn": 4, "mlp": 6}  # old checkpoints are removed from the second round on
ONCE = "judge", "keep"  # in a round; all else is done by every host
COMPUTES = "main", "first", "between", "last", "own", "digest", "publish"  # forwards and updates
REST = 0.001  # seconds that a host waits before a call, here as on Ray: its caches are cold then
GROWS = "between", "last", "digest", "receive", "judge", "save", "keep"  # with the number of hosts


class Timed(InlineBackend):
    """Notes the seconds of every call, by what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, list[float]] = defaultdict(list)
        self._lesson, self._saved = "", 0.0

    def call(self, host: str, method: str, *args: Any, results: int = 1) -> Any:
        """Run the call."""
        if method == "begin" and self._saved:
            self.taken["keep"].append(time.perf_counter() - self._saved)
        time.sleep(REST)
        start = time.perf_counter()
        made = super().call(host, method, *args, results=results)
        end = time.perf_counter()
        self.taken[self._what(method, args)].append(end - start)
        self._saved = end if method == "save" else 0.0
        return made

    def _what(self, method: str, args: tuple[Any, ...]) -> str:
        """A call in a word. Of segments: a window of a lesson in which nothing comes, by the lesson's name; the first
        forward of a window; what stands between two exchanges; what comes after the last one. ``keep`` is no call: what
        the driver does between the parts of a checkpoint and the next lesson.
        """
        if method == "begin":
            self._lesson = args[1]
        if method != "run":
            return method
        segment, *imports = args
        if imports:
            return "between" if segment.exports else "last"
        return self._lesson if segment.steps[0][0] in segment.complete else "first"


def drawn(kind: str, family: str, hosts: int) -> dict:
    """The mesh of a strategy on so many hosts."""
    model = KINDS[family]
    if kind == "rounds":
        return flow.parties(hosts, BATCH, model, ROUNDS[family])
    return flow.taught(hosts - 1, BATCH, model) if kind == "ensemble" else flow.peers(hosts, BATCH, model)


def calls(kind: str, family: str, hosts: int) -> dict[str, float]:
    """The median seconds of every kind of call in a run of a mesh, without the first one of each host."""
    steps = ROUND if kind == "rounds" else WINDOW * WINDOWS[family]
    session, data = Session("inline"), flow.table(family, steps * BATCH)
    session._backend = timed = Timed()
    with tempfile.TemporaryDirectory() as out:  # with a folder it writes checkpoints, as a run on Ray does
        run_once(Request(flow.placed(drawn(kind, family, hosts), "spread"), table=data, out=Path(out)), session=session)
    return {
        what: statistics.median(taken[1 if what in ONCE else hosts :] or taken) for what, taken in timed.taken.items()
    }


@dataclass(frozen=True)
class Work:
    """Seconds of every kind of call of one strategy: of one host, and for every further one more."""

    alone: dict[str, float]
    more: dict[str, float]

    def more_of(self, what: str, hosts: int) -> float:
        """What the others add to a call."""
        return self.more.get(what, 0.0) * (hosts - 1)

    def slower(self, factor: float) -> Work:
        """The same with another model, whose forwards and updates take so many times as long."""
        return replace(
            self, alone={what: took * (factor if what in COMPUTES else 1.0) for what, took in self.alone.items()}
        )


def work(found: Callable[[str, str, int], dict[str, float]], kind: str, family: str) -> Work:
    """``found``: what :func:`calls` gave. What a host more adds, a loss of ten classes or a publication that is read,
    does not depend on the model, and is lost in the noise of a large one's steps: it is told by the small one.
    """
    small, own = ({hosts: found(kind, name, hosts) for hosts in HOSTS} for name in ("mlp", family))
    more, alone = {}, {}
    for what in own[HOSTS[0]]:
        if what in GROWS:
            more[what] = max(0.0, (small[HOSTS[-1]][what] - small[HOSTS[0]][what]) / (HOSTS[-1] - HOSTS[0]))
        alone[what] = max(0.0, statistics.mean(own[h][what] - more.get(what, 0.0) * (h - 1) for h in HOSTS))
    return Work(alone, more)
