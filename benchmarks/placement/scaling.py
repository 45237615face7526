"""From 2 to 1,024 hosts: a simulation from costs that are measured first, and what it gets right of 2 to 4 real hosts.

Costs are measured on this machine: an actor's call, a crossing by its bytes, what the driver does for each, and what
every call computes with all cores busy. Runs on Ray are predicted that took no part in this, and measured in turn with
it: what a step more takes, or a round more. On so few cores more hosts share them, and the simulation shares them, too.
Last, every host gets a core of its own and a network of 10 Gbit/s, which is an assumption.
Run: ``python -m benchmarks.placement scaling [--turns N] [--write]``; ``--write`` puts what it prints into
docs/scaling.md.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import math
import operator
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from scipy import stats

from benchmarks.placement import meshes as flow
from benchmarks.placement.draw import ensemble, live, mutual, rounds, shape
from benchmarks.placement.driver import main as only
from benchmarks.placement.fit import fit
from benchmarks.placement.probe import Actors
from benchmarks.placement.runs import Case, Runs
from benchmarks.placement.sim import BUSY, Costs, Mesh
from benchmarks.placement.work import BATCH, KINDS, ROUND, STRATEGIES, Work, work
from benchmarks.placement.work import HOSTS as PROVEN
from kdmesh.backends import Session
from kdmesh.engine.teach import AHEAD, WINDOW
from kdmesh.graph.fragments import cut
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
BEGIN, END = "<!-- written by benchmarks/placement/scaling.py -->", "<!-- the end of what it writes -->"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
HOSTS = tuple(2**n for n in range(3, 11))
NETWORK = 1.25e9  # bytes a second, each way: 10 Gbit/s, not measured
GOAL, TURNS = 0.20, 6
WAITING = "nobody: hosts wait for one another's results"
PER_BYTE = ("byte", "sum")
WAITS = {"wake": "a host wakes so much later", "pushed": "the driver goes on so much later"}
TOLD = {
    "ensemble": ("main", "first", "last"),
    "mutual": ("first", "between", "last"),
    "rounds": ("own", "publish", "receive", "evaluate_consensus", "digest", "save", "keep", "turn"),
}
SAID = {
    ("driver", "submit"): "the driver's submissions",
    ("driver", "wait"): "the driver's waiting for results",
    ("driver", "cut"): "the driver's cutting of windows",
    ("driver", "turn"): "the driver's turning from phase to phase",
    ("driver", "keep"): "the driver's completing of checkpoints",
    ("io", "io"): "values that pass through the driver's process",
    ("port", "network"): "bytes at the driver's machine",
    ("hosts", "compute"): "computing",
    ("hosts", "combine"): "one host's combining of what it hears",
    ("hosts", "read"): "one host's reading of what comes",
    ("ports", "network"): "bytes at one host",
}


@dataclass(frozen=True)
class Model:
    """What a model's calls compute, by strategy."""

    works: dict[str, Work]
    parameters: int


def predicted(kind: str, hosts: int, model: Model, costs: Costs, cores: float = CORES) -> tuple[float, Mesh]:
    """Seconds of a step, or of a round, once it runs steadily; and who was busy."""
    mesh, work = Mesh(costs, hosts, cores), model.works[kind]
    if kind == "rounds":
        mesh.run(rounds(work, hosts, costs, ROUND))
        return mesh.marks[-1], mesh
    count = 12 if hosts <= 64 else 9
    mesh.run(live(kind, work, hosts, costs, count))
    first, last = 2, count - 2 - AHEAD  # while the last windows run, teachers are done before and leave cores idle
    return (mesh.marks[last] - mesh.marks[first]) / (last - first) / WINDOW, mesh


def model(runs: Runs, family: str) -> Model:
    """What was measured of a model."""
    works = {kind: work(lambda *case: runs.probed(("work", *case)), kind, family) for kind in STRATEGIES}
    ((name, config),) = KINDS[family].items()
    made = registry().find("models", name).make(config, input_shape=flow.SHAPES[family], classes=flow.CLASSES)
    return Model(works, sum(map(torch.numel, made.parameters())))


def foretold(runs: Runs) -> dict[Case, tuple[float, float]]:
    """Of every run, what is predicted and what was measured."""
    costs, models = fit(runs.probed, CORES), {family: model(runs, family) for family in KINDS}
    return {
        (kind, family, hosts): (predicted(kind, hosts, made, costs)[0], max(runs.each((kind, family, hosts)), 1e-9))
        for family, made in models.items()
        for kind in STRATEGIES
        for hosts in PROVEN
    }


def compared(runs: Runs, turns: int) -> Iterator[str]:
    """A line for each real run: ms of a step or of a round, predicted and measured, and how far their ratio is known.

    A jackknife over turns, which are what is independent: prediction and measurement see the same machine in each.
    """
    yield f"{'on this machine':26}{'hosts':>7}{'predicted':>12}{'measured':>12}{'off by':>9}{'95% of that':>18}"
    met, fewer = dict.fromkeys(KINDS, 0), [foretold(runs.without(turn)) for turn in range(turns)]
    for (kind, family, hosts), (guess, found) in foretold(runs).items():
        logs = [math.log(operator.truediv(*one[kind, family, hosts])) for one in fewer]
        wide = stats.t.ppf(0.975, turns - 1) * math.sqrt((turns - 1) * statistics.pvariance(logs))
        off, low, high = (guess / found * math.exp(more) - 1 for more in (0, -wide, wide))
        met[family] += abs(off) <= GOAL
        verdict = "  MISS" if abs(off) > GOAL else ""
        cells = f"{guess * 1000:12.2f}{found * 1000:12.2f}{off:+9.0%}{low:+10.0%} to{high:+5.0%}"
        yield f"{kind + ', ' + family:26}{hosts:7}{cells}{verdict}"
    yield f"goal: within {GOAL:.0%}; " + ", ".join(f"{family}: {count} of 9 are" for family, count in met.items())


def scaled(made: Model, costs: Costs) -> Iterator[str]:
    """A line for each number of hosts, each with a core of its own; then the first bottleneck."""
    far, made = replace(costs, network=NETWORK), even(made)
    for kind in STRATEGIES:
        first = ""
        unit, scale = ("s a round", 1) if kind == "rounds" else ("ms a step", 1000)
        yield f"{kind}: {'hosts':>7}{unit:>18}{'computing':>12}{'driver':>9}  most busy"
        for hosts in HOSTS:
            seconds, mesh = predicted(kind, hosts, made, far, float("inf"))
            share, who, computing, driver = busiest(mesh)
            cells = f"{hosts:7}{seconds * scale:18,.1f}{computing:12.0%}{driver:9.0%}  {who} ({share:.0%})"
            yield f"{'':{len(kind) + 2}}{cells}"
            if not first and who != SAID["hosts", "compute"]:
                first = f"the first bottleneck, at {hosts} hosts: {who}"
        yield f"{'':{len(kind) + 2}}{first or 'no bottleneck but computing'}"


def busiest(mesh: Mesh) -> tuple[float, str, float, float]:
    """The share of the time in which the busiest is at work, on what most; the hosts' computing, the driver's share."""
    servers = {"driver": [mesh.driver], "io": [mesh.io], "port": [mesh.port], "hosts": mesh.hosts, "ports": mesh.ports}
    most = {name: max(group, key=lambda server: sum(server.busy.values())) for name, group in servers.items()}
    shares = {name: sum(server.busy.values()) / mesh.cores.now for name, server in most.items()}
    name = max(shares, key=lambda name: shares[name])
    what = SAID[name, max(most[name].busy, key=lambda what: most[name].busy[what])]
    computing = max(host.busy["compute"] for host in mesh.hosts) / mesh.cores.now
    return shares[name], what if shares[name] >= 0.5 else WAITING, computing, shares["driver"]


def same_calls() -> str:
    """Whether the simulation's windows are the engine's: the same calls, that read as many results."""
    for draw, mesh, hosts in ((ensemble, flow.taught(3, BATCH), 4), (mutual, flow.peers(4, BATCH), 4)):
        plan = make_plan(flow.placed(mesh, "spread"), registry())
        names = list(plan.hosts)
        (stage,) = (stage for stage in plan.stages if stage.phases)
        found = [(names.index(s.host), len(s.needs)) for s in cut(plan, stage.name, only(plan, stage.name), 0, 16)]
        if sorted(found) != sorted(shape(draw(Work(defaultdict(float), {}), hosts))):
            return f"MISS: the calls of {draw.__name__} are not the engine's"
    return "the calls of a window, drawn for 4 hosts, are those that the engine cuts"


def lines(turns: int) -> Iterator[str]:
    """Everything, line by line."""
    yield (
        f"{datetime.date.today()}, {platform.system()} {platform.machine()}, {CORES} cores, torch {torch.__version__}, "
        f"means of {turns} turns"
    )
    yield same_calls()
    with Session("ray") as ray:
        flow.open_ray(ray)
        runs, actors = Runs(), Actors()
        runs.also(actors.ways(ray))
        runs.predicted(ray, actors.work)
        runs.measure(turns)
        actors.close()
        found = fit(runs.probed, CORES)
        models = {family: model(runs, family) for family in KINDS}
        small = {name: value for name, value in asdict(found).items() if name not in ("network", *WAITS, *PER_BYTE)}
        yield "costs in microseconds: " + ", ".join(f"{name} {value * 1e6:.3g}" for name, value in small.items())
        for (name, what), (number, hosts) in itertools.product(WAITS.items(), enumerate(PROVEN)):
            row = zip(BUSY, getattr(found, name)[number], strict=True)
            yield f"{what}, {hosts} hosts: " + ", ".join(
                f"{cost * 1e6:,.0f} at {busy * 1000:g} ms" for busy, cost in row
            )
        yield f"2 MB that cross take {found.byte * 2e6 * 1000:.2f} ms, 1 MB of a checkpoint {found.sum * 1e9:.2f} ms"
        for family, made in models.items():
            yield f"{family}, {made.parameters:,} parameters, batch {BATCH}; ms of a call, x the slower of two"
            for kind, one in made.works.items():
                yield f"  {kind}: " + ", ".join(told(what, one) for what in TOLD[kind])
        yield ""
        yield from compared(runs, turns)
    yield ""
    yield f"simulated: cnn, every host a core of its own, {NETWORK * 8 / 1e9:g} Gbit/s"
    yield from scaled(models["cnn"], found)
    yield ""
    heavy = slower(models["cnn"], 1.0)
    yield "simulated: the same with a model whose training step takes 1 s"
    yield from scaled(heavy, found)


def told(what: str, work: Work) -> str:
    """What a call computes, in words."""
    more = work.more.get(what)
    added = f" (+ {more * 1000:.2g} each host more)" if more is not None else ""
    return f"{what} {work.alone[what] * 1000:.3g}{added} x{work.uneven[what]:.2f}"


def even(model: Model) -> Model:
    """A model whose hosts are equally fast, on machines of their own."""
    return replace(model, works={kind: replace(work, uneven={}) for kind, work in model.works.items()})


def slower(model: Model, step: float) -> Model:
    """A model of which a training step takes so many seconds, and all else that it computes as many times as long."""
    factor = step / (model.works["rounds"].alone["own"] / WINDOW)
    return replace(model, works={kind: work.slower(factor) for kind, work in model.works.items()})


def write(text: str) -> None:
    """Put the lines into the page, in place of those of the last time."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n```\n{text}\n```\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Print every line, and write them where that is asked for."""
    options = argparse.ArgumentParser()
    options.add_argument("--turns", type=int, default=TURNS, help=f"measurements of each, 2 or more ({TURNS})")
    options.add_argument("--write", action="store_true", help="rewrite the block of docs/scaling.md")
    asked, page = options.parse_args(), []
    torch.set_num_threads(1)
    for line in lines(asked.turns):
        print(line, flush=True)
        page.append(line)
    if asked.write:
        write("\n".join(page))
