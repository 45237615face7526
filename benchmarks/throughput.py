"""Training throughput of kdmesh (inline) against hand-written PyTorch loops, interleaved.

Each case runs the same work up to five ways, in turn, seven times, torch on one thread: the hand-written loop that
indexes tensors, kdmesh inline with live teachers, kdmesh inline with its store (`once`: a frozen teacher is computed
once), and the hand-written loop fed by a DataLoader, twice. Beside classes there are values (regression), labels, each
on its own, and lists (ranking, a bi-encoder), eight of them a sample, by mlps of one hidden layer. Times are CPU
seconds of the one thread, so that a busy machine disturbs little; rates are medians of seven, ratios the medians of the
seven paired ratios. Data are random: only time is measured. Run: ``python benchmarks/throughput.py [--quick] [--only
CASES]``.

Memory: kdmesh asks the C library to keep what is freed, in its processes (`kdmesh/hosts/memory.py`), since page faults
cost a step of large activations a tenth and more. In this process all ways have that, so that *by hand* to *kdmesh*
compares the loops alone; so has *kept*, the loop fed by a DataLoader here. *DataLoader* is the same loop in a process
of its own, whose C library is left as it is: a loop as it is written.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KDMESH_STORE", "off")  # every teacher is computed

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import loops
import torch

from kdmesh.contracts.events import Event, StageFinished, StageStarted
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.hosts.memory import keep_memory
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table

FLOORS = {"cnn": 0.97, "digits cnn": 0.97, "mlp": 0.85, "values": 0.85, "labels": 0.85, "lists": 0.85}
SHAPES = {
    "cnn": (1, 28, 28),
    "digits cnn": (1, 8, 8),
    "mlp": (1, 8, 8),
    "values": (64,),
    "labels": (64,),
    "lists": (64,),
}
MODELS = {
    "cnn": {"cnn": {"width": 32, "depth": 3}},
    "digits cnn": {"cnn": {"width": 16}},  # the one that the demo and the examples train
    "mlp": {"mlp": {"hidden": [160]}},
    "values": {"mlp": {"hidden": [160]}},
    "labels": {"mlp": {"hidden": [160]}},
    "lists": {"bi_encoder": {"hidden": [160]}},
}
SAMPLES = {"cnn": 1024, "digits cnn": 4096, "mlp": 4096, "values": 4096, "labels": 4096, "lists": 1024}
EPOCHS = {"cnn": 2, "digits cnn": 2, "mlp": 4, "values": 4, "labels": 4, "lists": 4}
COLUMNS = 8  # values, labels or candidates of a sample
TASKS = {  # of the families that have no classes: the task, its loss of labels, and what compares two answers
    "values": ("regression", "mse", "mse", "mse"),
    "labels": ("multi_label", "bce", {"binary_kl": {"temperature": 4}}, "binary_kl"),
    "lists": ("ranking", "info_nce", {"kl": {"temperature": 4}}, "kl"),
}
USUAL = ("classification", "ce", {"kl": {"temperature": 4}}, "kl")
TRAIN = {"batch_size": 64, "optimizer": {"adamw": {"lr": 1e-3}}, "threads": 1}


def main() -> None:
    """Measure every case and print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="three runs instead of seven")
    options.add_argument("--only", default="", help="cases that begin with this")
    options.add_argument("--apart", nargs=2, help=argparse.SUPPRESS)
    given = options.parse_args()
    runs = 3 if given.quick else 7
    torch.set_num_threads(1)
    if given.apart:
        serve(*given.apart)
        return
    keep_memory()
    print(f"torch {torch.__version__}, one thread, {runs} interleaved runs, medians; samples/s\n")
    heads = ("params", "by hand", "kdmesh", "ratio", "floor", "store", "DataLoader", "ratio", "kept")
    print(f"{'case':28}" + "".join(f"{head:>11}" for head in heads))
    for family in MODELS:
        for case in ("one teacher", "three teachers", "two peers", "four peers"):
            if f"{family}, {case}".startswith(given.only):
                print(row(family, case, runs), flush=True)


def serve(family: str, case: str) -> None:
    """Run the loop fed by a DataLoader once for each line that comes, and answer with its seconds."""
    table = data(family)
    names, mesh, _ = CASES[case](family)
    modules, loop = loops.modules(mesh, names, table), by_hand(family, case)
    for _ in sys.stdin:
        print(loop(modules, table, EPOCHS[family], TRAIN["batch_size"], True), flush=True)


def row(family: str, case: str, runs: int) -> str:
    """Measure one case and return its line."""
    table = data(family)
    names, mesh, live = CASES[case](family)
    modules = loops.modules(mesh, names, table)
    loop = by_hand(family, case)

    def hand(loader: bool) -> float:
        return loop(modules, table, EPOCHS[family], TRAIN["batch_size"], loader)

    def inline(refresh: str) -> float:
        return seconds(mesh, modules, table, refresh)

    apart = subprocess.Popen(
        [sys.executable, __file__, "--apart", family, case],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert apart.stdin is not None and apart.stdout is not None

    def elsewhere() -> float:
        apart.stdin.write("again\n")
        return float(apart.stdout.readline())

    ways = {
        "hand": lambda: hand(False),
        "live": lambda: inline("step"),
        "kept": lambda: hand(True),
        "loader": elsewhere,
    }
    if live:
        ways["store"] = lambda: inline("once")
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(runs):
        order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]  # nobody is always first
        for name in order:
            times[name].append(ways[name]())
    apart.stdin.close()
    apart.wait()
    count = len(table) * EPOCHS[family]
    rate = {name: count / statistics.median(values) for name, values in times.items()}
    ratio, loader, kept = (
        statistics.median(h / k for h, k in zip(times[way], times["live"], strict=True))
        for way in ("hand", "loader", "kept")
    )
    size = sum(p.numel() for p in modules[names[-1]].parameters())
    cells = [
        f"{size:,}",
        f"{rate['hand']:,.0f}",
        f"{rate['live']:,.0f}",
        f"{ratio:.2f}",
        f"{FLOORS[family]:.2f}",
        f"{rate['store']:,.0f}" if live else "-",
        f"{rate['loader']:,.0f}",
        f"{loader:.2f}",
        f"{kept:.2f}",
    ]
    verdict = "" if ratio >= FLOORS[family] and loader >= 1 else "  MISS"
    return f"{family + ', ' + case:28}" + "".join(f"{cell:>11}" for cell in cells) + verdict


def by_hand(family: str, case: str) -> Callable[..., float]:
    """The hand-written loop of a case."""
    task = TASKS.get(family, USUAL)[0]
    return partial(loops.LOOPS[case], losses=loops.LOSSES.get(task, loops.CLASSES))


def data(family: str) -> Table:
    """Random samples, the same at every call."""
    torch.manual_seed(0)
    count, shape = SAMPLES[family], SHAPES[family]
    official = {"train": torch.arange(count)}
    if family == "values":
        return Table(torch.randn(count, *shape), torch.randn(count, COLUMNS), 0, official)
    if family == "labels":
        return Table(torch.randn(count, *shape), torch.randint(0, 2, (count, COLUMNS)), 0, official)
    if family == "lists":
        relevant = torch.eye(COLUMNS)[torch.randint(0, COLUMNS, (count,))]
        return Table(torch.randn(count, 1 + COLUMNS, *shape), relevant, 0, official)
    return Table(torch.randn(count, *shape), torch.randint(0, 10, (count,)), 10, official)


def seconds(mesh: dict, modules: dict, table: Table, refresh: str) -> float:
    """The time of the mesh's one stage, from its start to its end."""
    found: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StageStarted | StageFinished):
            found.append(time.process_time())

    flows = [{**flow, "refresh": refresh} if flow.get("refresh") else flow for flow in mesh["flows"]]
    run_once(Request(parse({**mesh, "flows": flows}), "inline", modules=modules, table=table, listeners=(listen,)))
    return found[1] - found[0]


def taught(family: str, count: int) -> tuple[list[str], dict, bool]:
    """A student of one or several frozen teachers, alpha 0.5, T 4."""
    teachers = [f"t{i}" for i in range(count)]
    _, labels, apart, _ = TASKS.get(family, USUAL)
    flows: list[dict] = [{"from": "labels", "to": "s", "objective": labels, "weight": 0.5}]
    last = {"to": "s", "objective": apart, "weight": 0.5}
    consensus: dict = {}
    if count == 1:
        flows.append({"from": "t0", "refresh": "step", **last})
    else:
        consensus = {"consensus": {"c": {"rule": "mean"}}}
        flows += [{"from": teachers, "to": "c", "refresh": "step"}, {"from": "c", **last}]
    agents = {name: {"update": "frozen"} for name in teachers} | {"s": {}}
    return [*teachers, "s"], mesh_of(family, agents, flows) | consensus, True


def peers(family: str, count: int) -> tuple[list[str], dict, bool]:
    """Simultaneous mutual learning, all pairs."""
    names = [f"p{i}" for i in range(count)]
    _, labels, _, apart = TASKS.get(family, USUAL)
    flows: list[dict] = []
    for name in names:
        flows.append({"from": "labels", "to": name, "objective": labels})
        others = [other for other in names if other != name]
        flows += [{"from": other, "to": name, "objective": apart, "weight": 1 / len(others)} for other in others]
    return names, mesh_of(family, {name: {} for name in names}, flows), False


def mesh_of(family: str, agents: dict, flows: list[dict]) -> dict:
    """The parts every case shares."""
    model = {"model": MODELS[family]}
    return {
        "task": TASKS.get(family, USUAL)[0],
        "data": {"dataset": "python:given", "validation": 0, "test": 0},
        "agents": {name: {**agent, **model} for name, agent in agents.items()},
        "flows": flows,
        "train": {**TRAIN, "epochs": EPOCHS[family]},
    }


CASES = {
    "one teacher": lambda family: taught(family, 1),
    "three teachers": lambda family: taught(family, 3),
    "two peers": lambda family: peers(family, 2),
    "four peers": lambda family: peers(family, 4),
}

if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - start:.0f} s in all")
