"""What the store spares a run, and what it costs: ``python benchmarks/store_runs.py [--quick]``.

All in this process, on one thread, in CPU seconds of the training stage (a machine that does other things as well
disturbs these least), medians of interleaved runs. *alone*: the student with labels only. *live*: frozen teachers are
forwarded in each step, no store. *cold* and *warm*: the same mesh with an empty store, and with one that has all.

1. One teacher of four times the student's cost, whose answers are live (`refresh: step`) or published (`once`): a
   second run against the student alone. It computes the loss against the teacher as well, which for a small student is
   a third of a step; so *targets*, the same two losses with targets in memory and no store, stands beside it, and
   *loop*: in plain PyTorch, a loop with both losses and targets in memory against one with labels alone.
2. Three such teachers, ten epochs: live against cold and warm.
3. The 12k MLP fed by the store against targets in memory (`once`, no store): steps a second.

A teacher's cost is that of its forward on a batch, the student's that of its whole step, as measured first.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy, kl_div

from kdmesh.contracts.events import Event, StageFinished, StageStarted
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.hosts.memory import keep_memory
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table

SAMPLES, BATCH, CLASSES = 4096, 64, 10
STUDENT = {"mlp": {"hidden": [160]}}  # 12,010 parameters
STUDENTS = {"12k MLP": STUDENT, "302k MLP": {"mlp": {"hidden": [512, 512]}}}
LARGER = {"1.2M MLP": {"mlp": {"hidden": [1024, 1024]}}}
TIMES = 4  # a teacher's cost in those of the student


def main() -> None:
    """Measure, and print three tables."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="three runs instead of seven")
    runs = 3 if options.parse_args().quick else 7
    torch.set_num_threads(1)
    keep_memory()
    table = data()
    width, ratio = teacher(table)
    print(f"torch {torch.__version__}, one thread, {runs} interleaved runs, medians of CPU seconds")
    print(f"a teacher of two layers of {width} costs {ratio:.1f} times the student's step\n")
    second(table, width, runs)
    three(table, width, runs)
    fed(table, width, runs)


def data() -> Table:
    """Random samples, the same at every call."""
    torch.manual_seed(0)
    x, y = torch.randn(SAMPLES, 64), torch.randint(0, CLASSES, (SAMPLES,))
    return Table(x, y, CLASSES, {"train": torch.arange(SAMPLES)})


def teacher(table: Table) -> tuple[int, float]:
    """How wide a teacher is that costs so much, and what it does cost, in steps of the student."""
    steps = 2 * SAMPLES // BATCH

    def cost(width: int) -> float:
        live = seconds(mesh(1, width, 2, "step"), table, "off") - seconds(mesh(1, width, 2, "once"), table, "off")
        return live / steps

    alone = min(seconds(mesh(0, 0, 2), table, "off") for _ in range(3)) / steps
    found = {width: min(cost(width) for _ in range(2)) / alone for width in (768, 1024, 1280)}
    best = min(found, key=lambda width: abs(found[width] - TIMES))
    return best, found[best]


def mesh(teachers: int, width: int, epochs: int, refresh: str = "step", student: Any = None) -> dict[str, Any]:
    """A student, with so many frozen teachers."""
    train = {"epochs": epochs, "batch_size": BATCH, "optimizer": {"adamw": {"lr": 1e-3}}}
    agents: dict[str, Any] = {"s": {"model": student or STUDENT}}
    names = [f"t{number}" for number in range(teachers)]
    for number, name in enumerate(names):
        agents[name] = {"model": {"mlp": {"hidden": [width, width]}}, "update": "frozen", "seed": number}
    flows: list[dict[str, Any]] = [{"from": "labels", "to": "s", "objective": "ce"}]
    if teachers == 1:
        flows.append({"from": "t0", "to": "s", "objective": "kl", "refresh": refresh})
    elif teachers:
        flows += [{"from": names, "to": "c", "refresh": refresh}, {"from": "c", "to": "s", "objective": "kl"}]
    consensus = {"consensus": {"c": "mean"}} if teachers > 1 else {}
    return {"train": train, "agents": agents, "flows": flows, **consensus}


def seconds(fields: dict[str, Any], table: Table, store: str | Path) -> float:
    """CPU seconds of the one stage, from its start to its end; publications are in it."""
    found: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StageStarted | StageFinished):
            found.append(time.process_time())

    run_once(Request(parse(fields), "inline", table=table, listeners=(listen,), store=str(store)))
    return found[1] - found[0]


def medians(ways: dict[str, Callable[[], float]], runs: int) -> dict[str, float]:
    """Of interleaved calls; nobody is always first."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(runs):
        for name in [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]:
            taken[name].append(ways[name]())
    return {name: statistics.median(values) for name, values in taken.items()}


def cold(fields: dict[str, Any], table: Table) -> float:
    """With a store that is empty."""
    with tempfile.TemporaryDirectory() as folder:
        return seconds(fields, table, folder)


def loop(table: Table, hidden: Sequence[int], epochs: int, taught: bool) -> float:
    """CPU seconds of a plain loop: cross-entropy, and beside it, if `taught`, KL of targets that are in memory."""
    widths = (64, *hidden, CLASSES)
    layers = [one for pair in pairwise(widths) for one in (torch.nn.Linear(*pair), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    targets = torch.randn(SAMPLES, CLASSES)
    began = time.process_time()
    for _ in range(epochs):
        for batch in torch.randperm(SAMPLES).split(BATCH):
            logits = model(table.x[batch])
            loss = cross_entropy(logits, table.y[batch])
            if taught:
                wanted = targets[batch].log_softmax(-1)
                loss = loss + kl_div(logits.log_softmax(-1), wanted, reduction="batchmean", log_target=True)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.process_time() - began


def second(table: Table, width: int, runs: int) -> None:
    """A second run against the student alone."""
    print(f"{'a second run':20}{'alone':>8}{'targets':>9}{'warm':>8}{'/ alone':>9}{'/ targets':>11}{'loop':>7}")
    for name, student in {**STUDENTS, **LARGER}.items():
        for refresh in ("step", "once"):
            with tempfile.TemporaryDirectory() as folder:
                fields = mesh(1, width, 10, refresh, student)
                seconds(fields, table, folder)
                ways = {
                    "alone": partial(seconds, mesh(0, 0, 10, student=student), table, "off"),
                    "targets": partial(seconds, mesh(1, 1, 10, "once", student), table, "off"),
                    "warm": partial(seconds, fields, table, folder),
                    "plain": partial(loop, table, student["mlp"]["hidden"], 10, False),
                    "taught": partial(loop, table, student["mlp"]["hidden"], 10, True),
                }
                got = medians(ways, runs)
            ratios = f"{got['warm'] / got['alone']:>9.2f}{got['warm'] / got['targets']:>11.2f}"
            figures = f"{got['alone']:>8.3f}{got['targets']:>9.3f}{got['warm']:>8.3f}"
            print(f"{f'{name}, {refresh}':20}{figures}{ratios}{got['taught'] / got['plain']:>7.2f}", flush=True)


def three(table: Table, width: int, runs: int) -> None:
    """Three teachers, ten epochs."""
    print(f"\n{'three teachers':16}{'live':>9}{'cold':>9}{'warm':>9}{'cold x':>9}{'warm x':>9}")
    for refresh in ("step", "once"):
        with tempfile.TemporaryDirectory() as folder:
            fields = mesh(3, width, 10, refresh)
            seconds(fields, table, folder)
            ways = {
                "live": lambda: seconds(mesh(3, width, 10, "step"), table, "off"),
                "cold": partial(cold, fields, table),
                "warm": partial(seconds, fields, table, folder),
            }
            got = medians(ways, max(1, runs // 2))
        times = f"{got['live'] / got['cold']:>9.1f}{got['live'] / got['warm']:>9.1f}"
        print(f"refresh: {refresh:7}" + "".join(f"{got[name]:>9.3f}" for name in ways) + times, flush=True)


def fed(table: Table, width: int, runs: int) -> None:
    """Steps a second from the store, and from memory."""
    epochs = 8
    with tempfile.TemporaryDirectory() as folder:
        ways = {"memory": lambda: seconds(mesh(1, 1, epochs, "once"), table, "off")}
        for refresh in ("once", "step"):
            seconds(mesh(1, width, epochs, refresh), table, folder)
        ways["once"] = lambda: seconds(mesh(1, width, epochs, "once"), table, folder)
        ways["step"] = lambda: seconds(mesh(1, width, epochs, "step"), table, folder)
        got = medians(ways, runs)
    rate = {name: epochs * SAMPLES / BATCH / taken for name, taken in got.items()}
    print(f"\n{'steps a second':16}{'memory':>9}{'store, once':>13}{'ratio':>7}{'store, step':>13}{'ratio':>7}")
    cells = f"{rate['memory']:>9,.0f}"
    for name in ("once", "step"):
        cells += f"{rate[name]:>13,.0f}{rate[name] / rate['memory']:>7.2f}"
    print(f"{'12k MLP':16}{cells}")


if __name__ == "__main__":
    main()
