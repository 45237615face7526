"""Real runs on Ray: those that are predicted. What predicts them is measured in turn with them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import flow_mesh as flow
from flow_probe import whole
from flow_work import BATCH, HOSTS, KINDS, ROUND, STRATEGIES, drawn

from kdmesh.backends import Session

LENGTHS = {"cnn": 48, "mlp": 256}  # steps of a short run
OFTEN = {("ensemble", "mlp"): 6, ("mutual", "mlp"): 2, ("rounds", "mlp"): 6}  # short runs, in every turn
Case = tuple[str, str, int]  # strategy, model, hosts


class Runs:
    """A real run is told by what a step or a round more takes: a long one less a short one, right after each other."""

    def __init__(self) -> None:
        self._ways: dict[Any, Callable[[], Any]] = {}
        self._found: dict[Any, list[Any]] = {}

    def predicted(self, ray: Session) -> None:
        """Add the runs of every strategy, model and number of hosts."""
        for family in KINDS:
            for kind in STRATEGIES:
                for hosts in HOSTS:
                    short, long, more = (rounds if kind == "rounds" else steps)(kind, family, hosts, ray)
                    short()  # a warm-up: actors import what their first run needs
                    often = OFTEN.get((kind, family), 1)
                    self._ways[kind, family, hosts] = lambda short=short, long=long, more=more, often=often: [
                        (long() - short()) / more for _ in range(often)
                    ]

    def also(self, ways: dict[Any, Callable[[], Any]]) -> None:
        """Add what is measured in turn with the runs; see :meth:`probed`."""
        self._ways.update({("also", name): way for name, way in ways.items()})

    def measure(self, repeats: int) -> None:
        """Run all of them in turn, so many times, so that what else the machine does is spread evenly."""
        self._found = flow.interleaved(self._ways, repeats, warm=False)

    def probed(self, name: Any) -> Any:
        """The mean of what was added, or that of every number it gives."""
        return whole(statistics.mean, self._found["also", name])

    def each(self, case: Case) -> tuple[float, float, float]:
        """Seconds of a step, or of a round: the mean, and between which half of them are."""
        found = [value for turn in self._found[case] for value in turn]
        low, _, high = statistics.quantiles(found, n=4)
        return statistics.mean(found), low, high


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
