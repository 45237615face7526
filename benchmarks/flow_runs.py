"""Real runs by which computing is measured, and those that are predicted."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flow_mesh as flow
import torch
from flow_draw import Model, lesson, rounds
from flow_fit import fitted
from flow_probe import middle
from flow_sim import Costs, Mesh

from kdmesh.backends import Session
from kdmesh.engine.teach import WINDOW
from kdmesh.plugins import registry

KINDS = {"cnn": flow.CNN, "mlp": flow.MLP}
LENGTHS = {"cnn": 48, "mlp": 256}  # steps of a short run
SOURCES = 0, 1, 3  # answers that a step compares with
ROUND = 32  # steps of a lesson of a round that is predicted


class Runs:
    """Real runs, of which each is told by what a step or a round more takes: a long one less a short one."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._ways: dict[tuple[Any, int], Callable[[], Any]] = {}
        self._times: dict[tuple[Any, int], list[Any]] = {}
        self._more: dict[str, int] = {}

    def steps(self, name: str, home: Session, mesh: dict, placement: Any, family: str, steps: int) -> None:
        """Add a run on the samples of so many steps, and one on three times as many."""
        self._more[name] = 2 * steps
        spec = flow.placed(mesh, placement)
        for times in (1, 3):
            data = flow.table(family, steps * self.batch * times)
            self._ways[name, times] = lambda data=data: flow.seconds(home, spec, data)

    def rounds(self, name: str, home: Session, count: int, family: str, steps: int) -> None:
        """Add a run of one round of so many parties, and one of four; a lesson has so many steps."""
        self._more[name] = 3
        data = flow.table(family, steps * self.batch)
        for key, times in ((1, 1), (3, 4)):
            spec = flow.placed(flow.parties(count, self.batch, KINDS[family], times), "spread")
            self._ways[name, key] = lambda spec=spec: flow.seconds(home, spec, data)

    def windows(self, name: str, home: Session, family: str, steps: int) -> None:
        """Add a round of two parties with so many steps of their own, and one with three times as many: they run in
        windows, as whatever is on several hosts.
        """
        self._more[name] = 2 * steps
        data = flow.table(family, steps * self.batch)
        for times in (1, 3):
            spec = flow.placed(flow.parties(2, self.batch, KINDS[family], 1, times), "spread")
            self._ways[name, times] = lambda spec=spec: flow.seconds(home, spec, data)

    def heard(self, name: str, home: Session, sources: int) -> None:
        """Add an epoch of two students, each of so many answers from its store, and three; of the small model.

        What a loss of ten classes takes does not depend on the model, and is lost in the noise of a large one's steps.
        """
        steps = LENGTHS["mlp"]
        self._more[name] = 2 * steps
        kind, data = KINDS["mlp"], flow.table("mlp", steps * self.batch)
        agents, flows, homes = {}, flow.labelled(["s0", "s1"]), {"one": ["s0"], "two": ["s1"]}
        for number, (host, held) in enumerate(homes.items()):
            names = [f"t{number}{source}" for source in range(sources)]
            agents |= {f"s{number}": {"model": kind}, **{one: {"model": kind, "update": "frozen"} for one in names}}
            flows += [{"from": one, "to": f"s{number}", "objective": "kl", "refresh": "once"} for one in names]
            homes[host] = [*held, *names]
        for times in (1, 3):
            spec = flow.placed(
                {**flow.mesh(agents, flows, self.batch), "train": {"epochs": times, "batch_size": self.batch}}, homes
            )
            self._ways[name, times] = lambda spec=spec: flow.seconds(home, spec, data)

    def also(self, ways: dict[Any, Callable[[], Any]]) -> None:
        """Add what is measured in turn with the runs; see :meth:`probed`."""
        self._ways.update({(name, 0): way for name, way in ways.items()})

    def probed(self, name: Any) -> Any:
        """The median of what was added, or that of every number it gives."""
        return middle(self._times[name, 0])

    def measure(self, repeats: int) -> None:
        """Run all of them in turn, so many times, so that what else the machine does is spread evenly."""
        for (_, times), way in self._ways.items():
            if times == 1:  # a warm-up: actors import what their first run needs
                way()
        self._times = flow.interleaved(self._ways, repeats, warm=False)

    def each(self, name: str) -> float:
        """Seconds of a step, or of a round."""
        long, short = (statistics.median(self._times[name, times]) for times in (3, 1))
        return max(0.0, long - short) / self._more[name]


def computing(runs: Runs, ray: Session, family: str) -> None:
    """Add the runs that tell what a model's computing takes, with two hosts at work. None of them is predicted."""
    runs.windows(f"{family} windows", ray, family, LENGTHS[family])
    kind, steps, batch = KINDS[family], LENGTHS[family], runs.batch
    students = flow.labelled(["s0", "s1"])
    alone = flow.mesh({"s0": kind, "s1": kind}, students, batch)
    runs.steps(f"{family} train", ray, alone, {"one": ["s0"], "two": ["s1"]}, family, steps)
    frozen = {"model": kind, "update": "frozen"}
    flows = [{"from": f"t{n}", "to": f"s{n}", "objective": "kl", "refresh": "step"} for n in (0, 1)]
    pairs = flow.mesh({"t0": frozen, "t1": frozen, "s0": kind, "s1": kind}, [*students, *flows], batch)
    homes = {"one": ["t0", "s0"], "two": ["t1", "s1"]}
    runs.steps(f"{family} taught", ray, pairs, homes, family, steps)
    once = [*students, *({**edge, "refresh": "once"} for edge in flows)]
    published = {**pairs, "flows": once, "train": {"steps": 1, "batch_size": batch}}
    runs.steps(f"{family} published", ray, published, homes, family, 2 * steps)
    runs.rounds(f"{family} party", ray, 2, family, ROUND // 4)


def model(runs: Runs, family: str, costs: Costs, cores: int) -> Model:
    """What those runs say; of a round what is left when its calls, steps and checkpoint are simulated.

    A step is one of a window, as on several hosts; only what a frozen teacher adds is told by longer stretches.
    """
    whole, party = runs.each(f"{family} train"), runs.each(f"{family} party")
    none, one, three = (runs.each(f"heard {count}") for count in SOURCES)
    first, term = max(0.0, one - none), max(0.0, three - one) / 2
    still = max(0.0, runs.each(f"{family} taught") - whole - first)
    in_windows = runs.each(f"{family} windows")
    train = fitted(lambda train: windowed(train, costs, runs.batch, cores), in_windows)
    size = sum(map(torch.numel, built(KINDS[family], family)))
    known = Model(train, still, first, term, runs.each(f"{family} published"), runs.batch, size)
    short = Mesh(costs, 2, cores)
    short.run(rounds(known, 2, costs, 1, ROUND // 4))
    return replace(known, rounds=max(0.0, party - short.marks[-1]))


def windowed(train: float, costs: Costs, batch: int, cores: int) -> float:
    """Simulated seconds of a step of two hosts that exchange nothing, where a step computes for ``train``."""
    few, many, taken = 4 * WINDOW, 12 * WINDOW, []
    for steps in (few, many):
        mesh = Mesh(costs, 2, cores)
        mesh.run(lesson(Model(train, 0.0, 0.0, 0.0, 0.0, batch, 0), 2, costs, steps, 0))
        taken.append(mesh.cores.now)
    return (taken[1] - taken[0]) / (many - few)


def built(kind: dict, family: str) -> list[Any]:
    """The parameters of a model."""
    ((name, config),) = kind.items()
    made = registry().find("models", name).make(config, input_shape=flow.SHAPES[family], classes=flow.CLASSES)
    return list(made.parameters())
