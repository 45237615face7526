"""Training throughput of kdmesh (inline) against hand-written PyTorch loops, interleaved in one process.

Each case runs the same work up to four ways, in turn, seven times, torch on one thread: the hand-written loop that
indexes tensors, kdmesh inline with live teachers, kdmesh inline with its store (`once`: a frozen teacher is computed
once), and the hand-written loop fed by a DataLoader. Times are CPU seconds of the one thread, so that a busy machine
disturbs little; both sides keep freed memory, as kdmesh has it in its processes (page faults are the largest noise);
rates are medians of seven, ratios the medians of the seven paired ratios. Data are random: only time
is measured. Run: ``python benchmarks/throughput.py [--quick]``.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time

import loops
import torch

from kdmesh.agents.memory import keep_memory
from kdmesh.engine.launch import Request, run_once
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table

FLOORS = {"cnn": 0.97, "digits cnn": 0.97, "mlp": 0.85}
SHAPES = {"cnn": (1, 28, 28), "digits cnn": (1, 8, 8), "mlp": (1, 8, 8)}
MODELS = {
    "cnn": {"cnn": {"width": 32, "depth": 3}},
    "digits cnn": {"cnn": {"width": 16}},  # the one that the demo and the examples train
    "mlp": {"mlp": {"hidden": [160]}},
}
SAMPLES = {"cnn": 1024, "digits cnn": 4096, "mlp": 4096}
EPOCHS = {"cnn": 2, "digits cnn": 2, "mlp": 4}
TRAIN = {"batch_size": 64, "optimizer": {"adamw": {"lr": 1e-3}}, "threads": 1}


def main() -> None:
    """Measure every case and print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="three runs instead of seven")
    runs = 3 if options.parse_args().quick else 7
    torch.set_num_threads(1)
    keep_memory()
    print(f"torch {torch.__version__}, one thread, {runs} interleaved runs, medians; samples/s\n")
    heads = ("params", "by hand", "kdmesh", "ratio", "floor", "store", "DataLoader", "ratio")
    print(f"{'case':28}" + "".join(f"{head:>11}" for head in heads))
    for family in MODELS:
        for case in ("one teacher", "three teachers", "two peers", "four peers"):
            print(row(family, case, runs), flush=True)


def row(family: str, case: str, runs: int) -> str:
    """Measure one case and return its line."""
    table = data(family)
    names, mesh, live = CASES[case](family)
    modules = loops.modules(mesh, names, table)
    hand = loops.LOOPS[case]

    def by_hand(loader: bool) -> float:
        return hand(modules, table, EPOCHS[family], TRAIN["batch_size"], loader)

    def inline(refresh: str) -> float:
        return seconds(mesh, modules, table, refresh)

    ways = {"hand": lambda: by_hand(False), "live": lambda: inline("step"), "loader": lambda: by_hand(True)}
    if live:
        ways["store"] = lambda: inline("once")
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(runs):
        order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]  # nobody is always first
        for name in order:
            times[name].append(ways[name]())
    count = len(table) * EPOCHS[family]
    rate = {name: count / statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(h / k for h, k in zip(times["hand"], times["live"], strict=True))
    loader = statistics.median(h / k for h, k in zip(times["loader"], times["live"], strict=True))
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
    ]
    verdict = "" if ratio >= FLOORS[family] and loader >= 1 else "  MISS"
    return f"{family + ', ' + case:28}" + "".join(f"{cell:>11}" for cell in cells) + verdict


def data(family: str) -> Table:
    """Random samples, the same at every call."""
    torch.manual_seed(0)
    count = SAMPLES[family]
    return Table(
        torch.randn(count, *SHAPES[family]), torch.randint(0, 10, (count,)), 10, {"train": torch.arange(count)}
    )


def seconds(mesh: dict, modules: dict, table: Table, refresh: str) -> float:
    """The time of the mesh's one stage, from its start to its end."""
    found: list[float] = []

    def listen(event: dict) -> None:
        if event["event"] in ("stage_started", "stage_finished"):
            found.append(time.process_time())

    flows = [{**flow, "refresh": refresh} if flow.get("refresh") else flow for flow in mesh["flows"]]
    run_once(Request(parse({**mesh, "flows": flows}), "inline", modules=modules, table=table, listeners=(listen,)))
    return found[1] - found[0]


def taught(family: str, count: int) -> tuple[list[str], dict, bool]:
    """A student of one or several frozen teachers, alpha 0.5, T 4."""
    teachers = [f"t{i}" for i in range(count)]
    flows = [{"from": "labels", "to": "s", "objective": "ce", "weight": 0.5}]
    last = {"to": "s", "objective": {"kl": {"temperature": 4}}, "weight": 0.5}
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
    flows: list[dict] = []
    for name in names:
        flows.append({"from": "labels", "to": name, "objective": "ce"})
        others = [other for other in names if other != name]
        flows += [{"from": other, "to": name, "objective": "kl", "weight": 1 / len(others)} for other in others]
    return names, mesh_of(family, {name: {} for name in names}, flows), False


def mesh_of(family: str, agents: dict, flows: list[dict]) -> dict:
    """The parts every case shares."""
    model = {"model": MODELS[family]}
    return {
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
