"""Real runs on Ray: those that are predicted. What predicts them is measured in turn with them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks.placement import meshes as flow
from benchmarks.placement.probe import whole
from benchmarks.placement.work import BATCH, HOSTS, KINDS, ROUND, STRATEGIES, drawn
from kdmesh.backends import Session

LENGTHS = {"cnn": 48, "mlp": 256}  # steps of a short run
OFTEN = {  # in every turn: short runs vary the most
    ("ensemble", "mlp"): 5,
    ("rounds", "mlp"): 5,
    ("mutual", "mlp"): 2,
    ("ensemble", "cnn"): 2,
    ("mutual", "cnn"): 2,
}
Case = tuple[str, str, int]  # strategy, model, hosts
Ways = dict[Any, Callable[[], Any]]


class Runs:
    """A real run is told by what a step or a round more takes: a long one less a short one, right after each other.

    The machine's speed drifts within a turn. So the runs that are short are spread over it, and what the calls of a run
    compute is measured right before it, every time.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[int, Ways]] = []  # how often in a turn, and what is measured right after each other
        self._found: list[dict[Any, list[Any]]] = []  # by turn

    def predicted(self, ray: Session, works: Callable[..., Any]) -> None:
        """Add the runs of every strategy, model and number of hosts, and ``works``, what their calls compute."""
        for family in KINDS:
            for kind in STRATEGIES:
                for hosts in HOSTS:
                    short, long, more = (rounds if kind == "rounds" else steps)(kind, family, hosts, ray)
                    short()  # a warm-up: actors import what their first run needs
                    case = kind, family, hosts
                    ways: Ways = {
                        ("also", ("work", *case)): lambda case=case: works(*case),
                        case: lambda short=short, long=long, more=more: (long() - short()) / more,
                    }
                    self._parts.append((OFTEN.get((kind, family), 1), ways))

    def also(self, ways: Ways) -> None:
        """Add what is measured in turn with the runs; see :meth:`probed`."""
        self._parts += [(1, {("also", name): way}) for name, way in ways.items()]

    def measure(self, turns: int) -> None:
        """So many turns, in each of which every part has its visits, spread evenly; nobody is always first."""
        visits = sorted(
            ((visit + number / len(self._parts)) / often, number)
            for number, (often, _) in enumerate(self._parts)
            for visit in range(often)
        )
        for turn in range(turns):
            found, first = defaultdict(list), len(visits) * turn // turns
            for _, number in visits[first:] + visits[:first]:
                for name, way in self._parts[number][1].items():
                    found[name].append(way())
            self._found.append(dict(found))

    def without(self, turn: int) -> Runs:
        """The same without what one turn found."""
        fewer = Runs()
        fewer._found = self._found[:turn] + self._found[turn + 1 :]
        return fewer

    def probed(self, name: Any) -> Any:
        """The mean of what was added, or that of every number it gives."""
        return whole(statistics.mean, self._all(("also", name)))

    def each(self, case: Case) -> float:
        """Seconds of a step, or of a round: the mean."""
        return statistics.mean(self._all(case))

    def _all(self, name: Any) -> list[Any]:
        return [value for turn in self._found for value in turn[name]]


Way = Callable[[], float]


def steps(kind: str, family: str, hosts: int, ray: Session) -> tuple[Way, Way, int]:
    """A run on the samples of so many steps, one on three times as many, and how many more these are."""
    spec, length = flow.placed(drawn(kind, family, hosts), "spread"), LENGTHS[family]
    few, many = flow.table(family, length * BATCH), flow.table(family, 3 * length * BATCH)
    return lambda: flow.seconds(ray, spec, few), lambda: flow.seconds(ray, spec, many), 2 * length


def rounds(kind: str, family: str, hosts: int, ray: Session) -> tuple[Way, Way, int]:
    """A run of one round, one of four, and how many more these are."""
    data = flow.table(family, ROUND * BATCH)
    one, four = (flow.placed(flow.parties(hosts, BATCH, KINDS[family], n), "spread") for n in (1, 4))
    return lambda: flow.seconds(ray, one, data), lambda: flow.seconds(ray, four, data), 3
