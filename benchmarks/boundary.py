"""What it costs to check what plugins give: type, shape, dtype, device, gradient, work in place, in every call.

Meshes of MLPs of 12k parameters, inline, one thread; `plugins` is one with an objective, a rule, a signal, a view and a
gate that are not built in. CPU seconds of a run with the checks and with them left out (the functions that check do
nothing, and the calls of them stay), in turn, seven times. Printed are CPU milliseconds a step, medians, the median of
the paired ratios with their quartiles, and, since that is about as large as its noise, the time of the checks by
themselves: calls a step, counted, by microseconds a call, timed alone on arguments of such a run, medians of seven.
Run: ``python benchmarks/boundary.py``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import loops
import throughput
import torch
from torch import Tensor

from kdmesh.consensus import Rule
from kdmesh.gates import Gate
from kdmesh.hosts import guard
from kdmesh.hosts.agent import Agent
from kdmesh.hosts.memory import keep_memory
from kdmesh.objectives import Objective
from kdmesh.offers import Config, ConsensusOffer, GateOffer, ObjectiveOffer, SignalOffer, ViewOffer
from kdmesh.testing.run_mesh import lent

RUNS, CALLS = 7, 4000
CHECKS = (
    (guard, "marks", lambda values: []),
    (guard, "both_marks", lambda one, two: None),
    (guard, "refuse_loss", lambda loss, own: None),
    (guard, "refuse_values", lambda *given: None),
    (guard, "refuse_signal", lambda *given: None),
    (guard, "refuse_view", lambda *given: None),
    (guard, "refuse_decision", lambda answer: answer),
    (Agent, "_answer", lambda agent, x: agent.module(x)),
    (Agent, "_sound", lambda agent, x, logits: logits),
)


class Square(Objective):
    """A mean square."""

    def forward(self, student: Tensor, target: Tensor, *, form: str = "logits", weights: Any = None) -> Tensor:
        """Compare."""
        return (student - target).square().mean()


class Even(Rule):
    """The mean."""

    def forward(self, values: Tensor, *, logits: Tensor, labels: Any = None, present: Any = None) -> Tensor:
        """Combine."""
        return values.mean(0)


class Open(Gate):
    """Always."""

    def forward(self, *, signal: Tensor) -> bool:
        """Decide."""
        return True


def soft() -> Callable[[Tensor], Tensor]:
    """Make probabilities."""
    return lambda value: value.softmax(-1)


def shifted(seed: int) -> Callable[..., Tensor]:
    """Move samples."""
    return lambda x, ids, draw: x + 0.1


OFFERS = (
    ObjectiveOffer("square", f"{__name__}:Square", Config),
    ConsensusOffer("even", f"{__name__}:Even", Config),
    GateOffer("open", f"{__name__}:Open", Config, needs=("signal",)),
    SignalOffer("softened", f"{__name__}:soft", Config),
    ViewOffer("shifted", f"{__name__}:shifted", Config),
)


def plugins(family: str) -> tuple[list[str], dict, bool]:
    """A student that learns from three, with plugins throughout."""
    names = ["t0", "t1", "t2"]
    flows: list[dict] = [
        {"from": "labels", "to": "s", "objective": "ce"},
        {"from": "t0", "to": "s", "objective": "square", "gate": "open", "refresh": "step"},
        {"from": "t1", "to": "s", "objective": "kl", "signal": "softened", "refresh": "step"},
        {"from": names, "to": "c", "refresh": "step"},
        {"from": "c", "to": "s", "objective": "kl"},
    ]
    agents: dict[str, dict] = {name: {"update": "frozen"} for name in names}
    agents["s"] = {"view": {"augment": ["shifted"]}}
    mesh = throughput.mesh_of(family, agents, flows)
    return [*names, "s"], mesh | {"consensus": {"c": {"rule": "even"}}}, True


CASES = {**throughput.CASES, "plugins": plugins}


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    keep_memory()
    table = throughput.data("mlp")
    steps = throughput.EPOCHS["mlp"] * len(table) // throughput.TRAIN["batch_size"]
    for case in ("one teacher", "three teachers", "two peers", "plugins"):
        names, mesh, _ = CASES[case]("mlp")
        modules = loops.modules(mesh, names, table)
        about = mesh, modules, table
        spent: dict[bool, list[float]] = {False: [], True: []}
        run(*about, False)
        for turn in range(RUNS):
            for without in (False, True) if turn % 2 else (True, False):
                spent[without].append(run(*about, without))
        ratios = [some / none for some, none in zip(spent[False], spent[True], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        with_, without = (statistics.median(spent[one]) / steps * 1000 for one in (False, True))
        took, words = by_themselves(*about, steps)
        print(
            f"{case:15} {with_:.3f} ms/step with, {without:.3f} without, ratio {middle:.3f} [{low:.3f}, {high:.3f}]; "
            f"by themselves {took:.1f} us/step, {took / with_ / 10:.2f}%: {words}"
        )


def run(mesh: Any, modules: Any, table: Any, without: bool) -> float:
    """CPU seconds of a run, with the checks or without."""
    with ExitStack() as stack:
        for holder, name, nothing in CHECKS if without else ():
            stack.enter_context(patch.object(holder, name, nothing))
        return throughput.seconds(mesh, modules, table, "step")


def by_themselves(mesh: Any, modules: Any, table: Any, steps: int) -> tuple[float, str]:
    """Microseconds a step that the checks take, timed alone, and of what they are made up."""
    counts: Counter[str] = Counter()
    given: dict[str, tuple[Any, ...]] = {}
    known = {name: getattr(holder, name) for holder, name, _ in CHECKS}

    def counted(name: str) -> Any:
        def call(*args: Any) -> Any:
            counts[name] += 1
            given[name] = args
            return known[name](*args)

        return call

    with ExitStack() as stack:
        for holder, name, _ in CHECKS:
            stack.enter_context(patch.object(holder, name, counted(name)))
        throughput.seconds(mesh, modules, table, "step")
    total, words = 0.0, []
    for name, count in counts.items():
        each = alone(known[name], given[name])
        if name == "_answer":  # the rest of it is the model
            agent, x = given[name]
            with patch.object(agent, "module", Bare()):
                each = alone(known[name], (agent, x)) - alone(Bare(), (x,))
        total += count / steps * each
        words.append(f"{name} {count / steps:.1f} x {each:.2f}")
    return total, ", ".join(words)


class Bare:
    """A model that does nothing."""

    training = False

    def __call__(self, x: Tensor) -> Tensor:
        """The samples."""
        return x


def alone(call: Callable[..., Any], args: tuple[Any, ...]) -> float:
    """Microseconds of a call."""
    found = []
    for _ in range(RUNS):
        start = time.process_time()
        for _ in range(CALLS):
            call(*args)
        found.append((time.process_time() - start) / CALLS * 1e6)
    return statistics.median(found)


if __name__ == "__main__":
    with lent(OFFERS):
        main()
