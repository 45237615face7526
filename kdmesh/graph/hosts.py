"""Which host holds which agents: what must stay together, and what the file asks for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import networkx as nx

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.check import below

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.stages import Units
    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec


def groups(
    spec: MeshSpec, edges: list[Edge], found: Units, consensus: dict[str, ConsensusNode]
) -> list[tuple[list[str], str]]:
    """Return agents that must share a host, with the reason, for every such set of two or more.

    Shared weights; the ends of `detach: false`; a follower and whom it follows; a trained or stateful consensus and its
    readers; a self-read of values recorded at every step.
    """
    found_groups: list[tuple[list[str], str]] = [
        (agents, f"they share the weights of {weights}") for weights, agents in found.agents.items() if len(agents) > 1
    ]
    for name, agent in spec.agents.items():
        if agent.ema is not None:
            found_groups.append(([agent.ema.of, name], f"{name} follows the weights of {agent.ema.of}"))
    for edge in edges:
        ends = [end for end in (edge.source, edge.target) if end in spec.agents]
        if not edge.detach and len(ends) == 2:
            found_groups.append((ends, f"gradients pass through {edge} (detach: false)"))
        elif edge.refresh == "step" and edge.stale == "recorded" and len(set(ends)) == 2:
            found_groups.append((ends, f"{edge} reads values recorded at every step"))
    for node in consensus.values():
        readers = [edge.target for edge in node.readers if edge.target in spec.agents]
        if node.owned and len(readers) > 1:
            found_groups.append((readers, f"one host owns consensus {node.name}"))
        through = [edge.source for edge in node.inputs if not edge.detach and edge.source in spec.agents]
        if through and any(not edge.detach for edge in node.readers):
            found_groups.append(([*through, *readers], f"gradients pass through consensus {node.name}"))
    return found_groups


def place(
    spec: MeshSpec, edges: list[Edge], found: Units, consensus: dict[str, ConsensusNode], registry: Registry
) -> dict[str, list[str]]:
    """Return the agents of every host; what must stay together but was placed apart is an error."""
    if spec.placement == "together":
        return {"host0": list(spec.agents)}
    together = groups(spec, edges, found, consensus)
    if isinstance(spec.placement, dict):
        return _explicit(spec, spec.placement, together)
    union = nx.utils.UnionFind(spec.agents)
    for agents, _ in together:
        union.union(*agents)
    parts: dict[str, list[str]] = {}
    for name in spec.agents:
        parts.setdefault(union[name], []).append(name)
    if spec.placement == "spread":
        return {f"host{number}": agents for number, agents in enumerate(parts.values())}
    resources = {"cpus": float(os.cpu_count() or 1)}
    return _explicit(
        spec, registry.ask("kdmesh_place_agents", mesh=spec, groups=[*parts.values()], resources=resources), together
    )


def _explicit(
    spec: MeshSpec, placement: dict[str, list[str]], together: list[tuple[list[str], str]]
) -> dict[str, list[str]]:
    """Check a placement that the file spells out."""
    host_of: dict[str, str] = {}
    for host, agents in placement.items():
        for name in agents:
            where = f"placement.{host}"
            if name not in spec.agents:
                raise MeshError(f"unknown agent {name!r}", where=where, instead=nearest(name, spec.agents, "agents"))
            if name in host_of:
                raise MeshError(f"agent {name!r} is placed on {host_of[name]!r} and on {host!r}", where=where)
            host_of[name] = host
    missing = [name for name in spec.agents if name not in host_of]
    if missing:
        raise MeshError(
            f"no host is named for {', '.join(missing)}",
            where="placement",
            instead="place every agent, or write `spread`",
        )
    for agents, why in together:
        names, hosts = ", ".join(dict.fromkeys(agents)), sorted({host_of[name] for name in agents})
        if len(hosts) > 1:
            raise MeshError(
                f"{names} must share a host, since {why}, but are placed on {', '.join(hosts)}",
                where="placement",
                instead="put them on one host",
            )
    return {host: list(agents) for host, agents in placement.items() if agents}


def check_private(spec: MeshSpec, edges: list[Edge], host_of: dict[str, str], readers: dict[str, list[str]]) -> None:
    """Refuse a signal made on a private stream that would leave its agent's host. ``readers``: of each consensus."""
    chains = {name: [spec.streams[s] for s in (name, *below(spec, name)) if s in spec.streams] for name in spec.streams}
    private = {name for name, chain in chains.items() if any(stream.private for stream in chain)}
    sharded = {name for name in private if any(stream.shards for stream in chains[name])}
    for edge in edges if private else ():
        if edge.stream not in private or edge.source not in spec.agents:
            continue
        for target in _ends(edge.target, readers):
            if target != edge.source and (edge.stream in sharded or host_of[target] != host_of[edge.source]):
                raise MeshError(
                    f"stream {edge.stream!r} is private, but {edge.source} -> {target} would carry signals made on it "
                    "away from their agent",
                    where=edge.where,
                    instead="teach on a stream that is not private (a public or transfer split)",
                )


def _ends(node: str, readers: dict[str, list[str]]) -> list[str]:
    """The agents that a signal sent to a node reaches, through any number of consensus nodes."""
    reached = [node]
    for name in reached:  # grows while it is read
        reached += [reader for reader in readers.get(name, ()) if reader not in reached]
    return [name for name in reached if name not in readers]
