"""What the Ray benchmarks share: meshes, random data, and the wall seconds of a mesh's stages."""

from __future__ import annotations

import atexit
import shutil
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from kdmesh.backends import Session
from kdmesh.contracts.events import Event, StageFinished, StageStarted
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.placement.settle import machine, resolve
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table

CNN = {"cnn": {"width": 32, "depth": 3}}  # 104,202 parameters on 28x28
WIDE = {"cnn": {"width": 52, "depth": 3}}  # its forward takes as long as a training step of CNN
MLP = {"mlp": {"hidden": [160]}}  # 12,010 parameters on 8x8
SHAPES = {"cnn": (1, 28, 28), "mlp": (1, 8, 8)}
LONG = 1000  # epochs of the run that `auto` places: long enough for the start of a process not to count
CLASSES = 10


def table(family: str, count: int) -> Table:
    """Random samples, the same at every call."""
    torch.manual_seed(0)
    x, y = torch.randn(count, *SHAPES[family]), torch.randint(0, CLASSES, (count,))
    return Table(x, y, CLASSES, {"train": torch.arange(count)})


def mesh(agents: dict[str, Any], flows: list[dict], batch: int, **more: Any) -> dict:
    """A mesh on random data; ``agents``: a model each, or a whole agent."""
    return {
        "data": {"dataset": "python:given", "validation": 0, "test": 0},
        "agents": {name: agent if "model" in agent else {"model": agent} for name, agent in agents.items()},
        "flows": flows,
        "train": {"epochs": 1, "batch_size": batch},
        **more,
    }


def labelled(names: list[str]) -> list[dict]:
    """Flows from the labels."""
    return [{"from": "labels", "to": name, "objective": "ce"} for name in names]


def alone(count: int, batch: int) -> dict:
    """Agents that learn from labels only: as many stages, without a path between them."""
    names = [f"t{number}" for number in range(count)]
    return mesh(dict.fromkeys(names, CNN), labelled(names), batch)


def pair(batch: int, model: dict = CNN, teacher: dict | None = None, **flow: Any) -> dict:
    """A teacher and a student; the teacher trains on labels, or is the agent that is given."""
    flow = {"objective": "kl", "refresh": "step", **flow}
    flows = [*labelled(["s"] if teacher else ["t", "s"]), {"from": "t", "to": "s", **flow}]
    return mesh({"t": teacher or model, "s": model}, flows, batch)


def peers(count: int, batch: int, model: dict = MLP) -> dict:
    """Simultaneous mutual learning, all pairs, at every step."""
    names = [f"p{number}" for number in range(count)]
    flows = labelled(names)
    for name in names:
        others = [other for other in names if other != name]
        flows += [{"from": other, "to": name, "objective": "kl", "weight": 1 / len(others)} for other in others]
    return mesh(dict.fromkeys(names, model), flows, batch)


def taught(count: int, batch: int, model: dict = CNN) -> dict:
    """Live frozen teachers, the mean of them, and a student."""
    names = [f"t{number}" for number in range(count)]
    flows = labelled(["s"])
    flows += [{"from": names, "to": "c", "refresh": "step"}, {"from": "c", "to": "s", "objective": "kl"}]
    agents = {name: {"model": model, "update": "frozen"} for name in names} | {"s": {"model": model}}
    return mesh(agents, flows, batch, consensus={"c": {"rule": "mean"}})


def parties(count: int, batch: int, model: dict = CNN, rounds: int = 2, own: int = 1) -> dict:
    """Parties that learn from labels for so many epochs, publish once a round, and digest the mean for one."""
    names = [f"p{number}" for number in range(count)]
    flows = [{**flow, "lesson": "own"} for flow in labelled(names)]
    flows += [{"from": names, "to": "c", "refresh": "round"}]
    flows += [{"from": "c", "to": names, "objective": "kl", "lesson": "digest"}]
    do = [{"lesson": "own", "epochs": own}, {"publish": names, "to": "c"}, {"lesson": "digest", "epochs": 1}]
    program = [{"of": names, "repeat": rounds, "do": do}]
    return mesh(dict.fromkeys(names, model), flows, batch, consensus={"c": {"rule": "mean"}}, program=program)


def placed(mesh: dict, placement: Any, threads: int = 1, **train: Any) -> MeshSpec:
    """The mesh with its placement and threads."""
    return parse({**mesh, "placement": placement, "train": {**mesh["train"], "threads": threads, **train}})


def auto(mesh: dict, data: Table) -> MeshSpec:
    """The mesh as `placement: auto` and `threads: auto` settle it on Ray for a long run."""
    plan = make_plan(placed(mesh, "auto", "auto", epochs=LONG), registry())
    spec = resolve(plan, examine(plan, None, data), {}, machine()).plan.spec
    return spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": mesh["train"]["epochs"]})})


def seconds(session: Session, spec: MeshSpec, data: Table) -> float:
    """Wall seconds from the start of the first stage to the end of the last."""
    marks: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StageStarted | StageFinished):
            marks.append(time.perf_counter())

    run_once(Request(spec, table=data, listeners=(listen,)), session=session)
    return marks[-1] - marks[0]


def open_ray(session: Session, cpus: int = 32) -> None:
    """Start the embedded Ray with more logical CPUs than any run takes: idle actors of earlier runs keep theirs."""
    assert session.backend.name == "ray"  # imports ray, with an embedded one's settings
    import ray

    from kdmesh.backends.processes import new_folder
    from kdmesh.backends.ray import start_ray

    folder = new_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(ray.shutdown)  # comes first
    start_ray(cpus=cpus, folder=folder)


def interleaved(ways: dict[Any, Callable[[], float]], runs: int, warm: bool = True) -> dict[Any, list[float]]:
    """Every way in turn, so many times, after a warm-up; nobody is always first."""
    for way in ways.values() if warm else ():
        way()
    names, found = list(ways), {name: [] for name in ways}
    for turn in range(runs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(ways[name]())
    return found


def ratio(one: list[float], other: list[float]) -> float:
    """The median of paired ratios."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))
