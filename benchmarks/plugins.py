"""What plugins cost a run: step time with none, ten and a hundred installed, and with an observer that is slow.

Each plugin is a file of a plugins folder that offers an objective and observes a run. The same mesh (an MLP of 12k
parameters, one frozen teacher, inline, one thread) runs with each number of plugins in turn, seven times; CPU
milliseconds a step, medians, and the medians of the seven paired ratios to none. The slow observer waits 20 ms of wall
time at every call, and what the run takes longer stands beside it. Run: ``python benchmarks/plugins.py``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KDMESH_STORE", "off")  # every teacher is computed

import statistics
import tempfile
import time
from pathlib import Path

import loops
import throughput
import torch

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.hosts.memory import keep_memory
from kdmesh.spec.read import parse

RUNS = 7
COUNTS = (0, 10, 100)
WAIT = 0.02
PLUGIN = """
import kdmesh
from kdmesh.offers import ObjectiveOffer

@kdmesh.hookimpl
def kdmesh_objectives():
    return [ObjectiveOffer("{name}", "{name}:Nothing")]
"""
OBSERVER = """
@kdmesh.hookimpl
def kdmesh_{hook}():
    {body}
"""
HOOKS = {
    "run_started": "run_started",
    "stage_started": "stage_started",
    "evaluated": "agent_evaluated",
    "round_finished": "round_finished",
    "run_finished": "run_finished",
}  # events, and the hooks that tell of them


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    keep_memory()
    table = throughput.data("mlp")
    names, mesh, _ = throughput.CASES["one teacher"]("mlp")
    modules = loops.modules(mesh, names, table)
    steps = throughput.EPOCHS["mlp"] * len(table) // throughput.TRAIN["batch_size"]
    with tempfile.TemporaryDirectory() as root:
        folders = {count: folder(Path(root) / str(count), count, "pass") for count in COUNTS}
        cpu: dict[int, list[float]] = {count: [] for count in COUNTS}
        for turn in range(RUNS + 1):
            for count in COUNTS[turn % len(COUNTS) :] + COUNTS[: turn % len(COUNTS)]:
                os.environ["KDMESH_PLUGINS_DIR"] = folders[count]
                spent = throughput.seconds(mesh, modules, table, "step")
                if turn:  # the first turn imports and warms up
                    cpu[count].append(spent)
        for count in COUNTS:
            ratio = statistics.median(some / none for some, none in zip(cpu[count], cpu[0], strict=True))
            print(f"{count:4} plugins: {statistics.median(cpu[count]) / steps * 1000:.3f} ms/step, ratio {ratio:.3f}")
        slow = folder(Path(root) / "slow", 1, f"__import__('time').sleep({WAIT})")
        wall: dict[str, list[float]] = {"none": [], "slow": []}
        for _ in range(RUNS):
            for name, where in (("none", folders[0]), ("slow", slow)):
                os.environ["KDMESH_PLUGINS_DIR"] = where
                seconds, calls = whole(mesh, modules, table)
                wall[name].append(seconds)
    longer = statistics.median(slow - none for slow, none in zip(wall["slow"], wall["none"], strict=True))
    print(f"an observer that waits {WAIT * 1000:.0f} ms at each of {calls} calls: {longer * 1000:.0f} ms longer")


def folder(path: Path, count: int, body: str) -> str:
    """A folder with so many plugins."""
    path.mkdir()
    for number in range(count):
        name = f"bench_{path.name}_{number}"
        text = PLUGIN.format(name=name) + "".join(OBSERVER.format(hook=hook, body=body) for hook in HOOKS.values())
        (path / f"{name}.py").write_text(text)
    return str(path)


def whole(mesh: dict, modules: dict, table: object) -> tuple[float, int]:
    """Wall seconds of a run, and how often an observer is called in it."""
    events: list[str] = []
    listen = (lambda event: events.append(event.kind),)
    start = time.perf_counter()
    run_once(Request(parse(mesh), "inline", modules=modules, table=table, listeners=listen))
    return time.perf_counter() - start, sum(event in HOOKS for event in events)


if __name__ == "__main__":
    main()
