"""How long planning takes: 10,000 agents and 100,000 flows, from the checked file to the plan.

Run ``python -m benchmarks.placement planner``; it exits with 1 if the median is over the bound.
"""

from __future__ import annotations

import argparse
from random import Random
from statistics import median
from time import perf_counter, process_time
from typing import Any

from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec

BOUND = 3.0  # seconds
GROUP = 100  # agents


def mesh(agents: int, flows: int, seed: int = 0) -> MeshSpec:
    """Draw a random mesh of groups of 100 agents that learn from labels, from earlier groups and from one another.

    In every second group a ring makes the agents train together; there, flows inside the group are live. Flows between
    groups wait. Half of them say so, for the others it is the default. A tenth of the agents reads a consensus.
    """
    random = Random(seed)
    drawn: list[dict[str, Any]] = [{"from": "labels", "to": f"a{i}", "objective": "ce"} for i in range(agents)]
    consensus: dict[str, Any] = {}

    def start(reader: int) -> int:
        return reader // GROUP * GROUP

    def source(reader: int, live: bool) -> dict[str, Any]:
        """Return `from` and `refresh` of a flow from another agent of the group, or from an earlier group."""
        end = min(start(reader) + GROUP, agents)
        other = random.randrange(start(reader), end - 1) if live else random.randrange(max(start(reader), GROUP))
        other += other >= reader if live else 0
        return {"from": f"a{other}", "refresh": random.choice([None, "step" if live else "once"])}

    def ring(reader: int) -> bool:
        return reader // GROUP % 2 == 0

    for reader in range(agents):
        if ring(reader):
            after = reader + 1 if (reader + 1) % GROUP and reader + 1 < agents else start(reader)
            drawn.append({"from": f"a{reader}", "to": f"a{after}", "objective": "kl"})
    for reader in range(0, agents, 10):
        consensus[f"c{reader}"] = {"rule": "mean"}
        live = reader < GROUP or (ring(reader) and random.random() < 0.5)
        ends = {end["from"]: end for end in (source(reader, live) for _ in range(8))}
        drawn += [{**end, "to": f"c{reader}"} for end in ends.values()]
        drawn.append({"from": f"c{reader}", "to": f"a{reader}", "objective": "kl"})
    while len(drawn) < flows:
        reader = random.randrange(agents)
        live = reader < GROUP or (ring(reader) and random.random() < 0.5)
        drawn.append({**source(reader, live), "to": f"a{reader}", "objective": "kl"})
    names = {f"a{i}": {"model": {"mlp": {"hidden": [16]}}} for i in range(agents)}
    return MeshSpec.model_validate({"agents": names, "consensus": consensus, "flows": drawn})


def main() -> int:
    """Plan the mesh five times and print the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--flows", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    spec, offered = mesh(args.agents, args.flows), registry()
    wall, cpu, size = [], [], ""
    for _ in range(args.repeat):
        started = perf_counter(), process_time()
        plan = make_plan(spec, offered)
        wall.append(perf_counter() - started[0])
        cpu.append(process_time() - started[1])
        size = f"{len(plan.edges):,} flows, {len(plan.consensus):,} consensus nodes, {len(plan.stages):,} stages"
        del plan  # freed here, not while the next one is timed
    met = median(wall) <= BOUND
    print(
        f"{args.agents:,} agents, {size}: median {median(wall):.2f} s of {args.repeat} "
        f"(CPU {median(cpu):.2f} s), bound {BOUND:g} s: {'pass' if met else 'miss'}"
    )
    return 0 if met else 1
