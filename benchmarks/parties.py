"""What parties cost: 20 simulated, 1,000 planned, and what crosses between four processes on loopback in a round.

Run ``python benchmarks/parties.py [--only simulated|planned|apart]``. Bytes are of messages, before they are
encrypted; of a round, those of twelve rounds less those of two, by ten. In each process torch has one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "parties"))

import yaml  # noqa: E402
from apart import coordinate, data_of, lay_out, party  # noqa: E402  # as the tests of parties lay their folders out

SHARES = {name: (range(300 + 350 * at, 650 + 350 * at), {*range(10)}) for at, name in enumerate("nesw")}
AGENTS = {name: f"of_{name}" for name in SHARES}
MODELS = {"4,810 weights": [64], "301,066 weights": [512, 512]}
ROUNDS = (2, 12)
PINGS = 300
COUNTED = """
import json, os, runpy, statistics, time
from kdmesh.backends.wire import pack, unpack
from kdmesh.cli import running
from kdmesh.parties import service

sizes, launch, init, met = {"down": 0, "up": 0}, running.launch, service.Coordinator.__init__, []

def ask(self, message, real=service.Connection.ask):
    answer = real(self, message)
    sizes["down"] += len(message)
    sizes["up"] += len(answer)
    return answer

def begun(self, *args, **options):
    init(self, *args, **options)
    met.append(self)

def launched(*args):
    start = time.perf_counter()
    code = launch(*args)
    told = {**sizes, "seconds": time.perf_counter() - start, "trips": []}
    link = next(iter(met[0].here(met[0].names).values()))
    for _ in range(int(os.environ["PINGS"])):
        start = time.perf_counter()
        link.ask(pack({"incarnation": 1, "there": True}))
        told["trips"].append(time.perf_counter() - start)
    with open(os.environ["TOLD"], "w") as file:
        json.dump(told, file)
    return code

service.Connection.ask, service.Coordinator.__init__, running.launch = ask, begun, launched
runpy.run_module("kdmesh", run_name="__main__", alter_sys=True)
"""


def fedmd(hidden: list[int], rounds: int) -> Any:
    """A mesh whose parties send answers to 90 public samples, by where their own samples are."""
    settings = {"students": [*AGENTS.values()], "objective": {"kl": {"temperature": 1}}, "rounds": rounds}
    return lambda path: {
        **base(hidden, path),
        "connect": [{"rounds": {**settings, "labels_stream": "own", "consensus": "mean"}}],
    }


def fedavg(hidden: list[int], rounds: int) -> Any:
    """The same models, whose weights are sent."""
    names, own = [*AGENTS.values()], {"stream": "own"}
    say = {"as": "weights", "refresh": "round"}
    lines = [{"publish": ["server"]}, {"train": names, "epochs": 1}, {"publish": names}]

    def mesh(path: Any) -> dict[str, Any]:
        made = base(hidden, path)
        made["agents"] = {"server": {**made["agents"][names[0]], "update": "merged"}} | {
            name: {**made["agents"][name], "init_of": "server"} for name in names
        }
        flows = [
            {"from": "labels", "to": names, "objective": "ce", **own},
            {"from": names, "to": "server", "weight": "samples", "discloses": "weights", **own, **say},
            {"from": "server", "to": names, **say},
        ]
        return {**made, "flows": flows, "program": [{"of": ["server", *names], "repeat": rounds, "do": lines}]}

    return mesh


def base(hidden: list[int], path: Any) -> dict[str, Any]:
    """What both have."""
    return {
        "name": "clinics",
        "data": {"dataset": data_of("public.csv"), "transfer": 0.3},
        "agents": {agent: {"model": {"mlp": {"hidden": hidden}}} for agent in AGENTS.values()},
        "parties": {name: {"agents": [agent], "data": data_of(path(name))} for name, agent in AGENTS.items()},
        "train": {"batch_size": 32, "optimizer": {"adamw": {"lr": 1e-3}}},
    }


def ran(place: Path, mesh: Any) -> dict[str, Any]:
    """A run of five processes; what was counted."""
    lay_out(place, SHARES, mesh)
    told = place / "told.json"
    coordinator, address = coordinate(place, "out", program=("-c", COUNTED), TOLD=str(told), PINGS=str(PINGS))
    parties = [party(place, name, address, "mine") for name in SHARES]
    if coordinator.wait(600):
        raise SystemExit(coordinator.log.read_text())
    for process in parties:
        process.wait(60)
    return dict(json.loads(told.read_text()))


def apart() -> None:
    """What crosses between processes."""
    trips: list[float] = []
    print("\nfour parties and a coordinator, five processes on loopback: bytes of a round, all parties together")
    for size, hidden in MODELS.items():
        for name, method in (("answers (FedMD)", fedmd), ("weights (FedAvg)", fedavg)):
            with tempfile.TemporaryDirectory() as folder:
                short, long = (ran(Path(folder) / str(rounds), method(hidden, rounds)) for rounds in ROUNDS)
            more = ROUNDS[1] - ROUNDS[0]
            up, down, seconds = ((long[key] - short[key]) / more for key in ("up", "down", "seconds"))
            trips += long["trips"]
            print(f"  {size}, {name}: {up:,.0f} from parties, {down:,.0f} to them, {seconds:.2f} s a round", flush=True)
    cuts = statistics.quantiles(trips, n=100)
    print(
        f"  an empty message and its answer: median {1e3 * cuts[49]:.2f} ms, of 100 the slowest {1e3 * cuts[98]:.2f} ms"
    )


def many(count: int, **more: Any) -> dict[str, Any]:
    """FedMD of so many parties, which share digits."""
    names = [f"p{number}" for number in range(count)]
    shards = {"of": "train", "shards": {"by": "dirichlet", "alpha": 0.5, "of": names}, "private": True}
    return {
        "name": "many",
        "data": {"dataset": "digits", "transfer": 0.3, "validation": 60, "test": 200},
        "streams": {"own": shards},
        "agents": {name: {"model": {"mlp": {"hidden": [32]}}} for name in names},
        "parties": {f"clinic{number}": [name] for number, name in enumerate(names)},
        "connect": [{"rounds": {"students": names, "rounds": 10, "labels_stream": "own", "consensus": "mean"}}],
        "train": {"batch_size": 16},
        **more,
    }


def command(title: str, fields: dict[str, Any], *args: str) -> None:
    """A command of kdmesh on a mesh: its seconds, and the most memory that it took."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mesh.yaml").write_text(yaml.safe_dump(fields))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "KDMESH_STORE": "off"}
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "kdmesh", args[0], "mesh.yaml", *args[1:]], cwd=folder, env=environment,
                       check=True, capture_output=True)  # fmt: skip
        seconds, most = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"  {title}: {seconds:.1f} s, at most {most:,.0f} MB", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("planned", "simulated", "apart"))
    only = parser.parse_args().only
    if only in (None, "planned"):  # first, since memory is the most that any process before took
        print("planned")
        for count in (20, 200, 1000):
            command(f"{count:,} parties", many(count), "plan")
    if only in (None, "simulated"):
        print("\nsimulated, ten rounds")
        quiet = ("--backend", "inline", "--no-report", "--quiet")
        command("20 parties", many(20), "run", *quiet)
        half = {"participation": {"fraction": 0.5, "quorum": 5}}
        command("20 parties, half of them in each round", many(20, **half), "run", *quiet)
    if only in (None, "apart"):
        apart()


if __name__ == "__main__":
    main()
