"""Which host holds which agents: what must stay together, and what the file asks for."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import networkx as nx

from kdmesh.errors import MeshError, nearest
from kdmesh.graph import kept, pairs, private, reach
from kdmesh.spec import HostSpec
from kdmesh.spec.names import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec


def groups(
    spec: MeshSpec, edges: list[Edge], owner: dict[str, str], consensus: dict[str, ConsensusNode]
) -> list[tuple[list[str], str]]:
    """Return agents that must share a host, with the reason, for every such set of two or more.

    Shared weights; the ends of `detach: false`; a follower and whom it follows; a trained or stateful consensus and its
    readers; a self-read of values recorded at every step.
    """
    views: dict[str, list[str]] = {}
    for name, weights in owner.items():
        views.setdefault(weights, []).append(name)
    found_groups: list[tuple[list[str], str]] = [
        (agents, f"they share the weights of {weights}") for weights, agents in views.items() if len(agents) > 1
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
    for read, writer, where in kept.informants(spec):
        if read in spec.agents:
            found_groups.append(([writer, read], f"the filter at {where} reads what {read} says"))
    for read in dict.fromkeys(pairs.references(spec)):
        if len(spec.agents) > 1:
            found_groups.append(([*spec.agents], f"metrics of pairs compare each with {read}"))
    for node in consensus.values():
        readers = [edge.target for edge in node.readers if edge.target in spec.agents]
        behind = reach.readers(node.name, consensus)
        if node.owned and not node.home and len(behind) > 1:
            found_groups.append((behind, f"one host owns consensus {node.name}"))
        through = [edge.source for edge in node.inputs if not edge.detach and edge.source in spec.agents]
        if through and any(not edge.detach for edge in node.readers):
            found_groups.append(([*through, *readers], f"gradients pass through consensus {node.name}"))
    return found_groups


def parts(
    spec: MeshSpec, edges: list[Edge], owner: dict[str, str], consensus: dict[str, ConsensusNode]
) -> list[list[str]]:
    """Return the agents in sets of which each must stay whole: on a host of its own, or with others."""
    union = nx.utils.UnionFind(spec.agents)
    for agents, _ in groups(spec, edges, owner, consensus):
        union.union(*agents)
    for agents in private.users(spec, edges, consensus).values():
        union.union(*agents)
    found: dict[str, list[str]] = {}
    for name in spec.agents:
        found.setdefault(union[name], []).append(name)
    return list(found.values())


def place(
    spec: MeshSpec,
    edges: list[Edge],
    owner: dict[str, str],
    consensus: dict[str, ConsensusNode],
    registry: Registry,
    parties: dict[str, list[str]] | None = None,
) -> tuple[MeshSpec, dict[str, list[str]]]:
    """Return the agents of every host, and the mesh with a plugin's answer to `auto` written into it.

    ``parties``: the hosts of a mesh that has these.

    What no plugin answers stays `auto`: all together, until a run has measured. What must stay together but was placed
    apart is an error.
    """
    if parties is not None:
        _apart(parties, groups(spec, edges, owner, consensus), "parties")
        return spec, parties
    everyone = {"host0": list(spec.agents)}
    if spec.placement == "together":
        return spec, everyone
    if isinstance(spec.placement, dict):
        return spec, _explicit(spec, spec.placement, groups(spec, edges, owner, consensus))
    whole = parts(spec, edges, owner, consensus)
    if spec.placement == "spread":
        return spec, {f"host{number}": agents for number, agents in enumerate(whole)}
    resources = {"cpus": float(os.cpu_count() or 1)}
    together = groups(spec, edges, owner, consensus)
    look = partial(_look, spec, together)
    answer = registry.ask("kdmesh_place_agents", look, mesh=spec, groups=whole, resources=resources, measured=None)
    if answer is None:
        return spec, everyone
    return spec.model_copy(update={"placement": answer}), _explicit(spec, answer, together)


def settled(plan: Plan, cpus: int, measured: dict[str, list[str]], registry: Registry) -> dict[str, list[str]]:
    """The answer to `auto` of a run that has measured: a plugin's, else what was measured; checked like any other."""
    about = (plan.spec, plan.edges, plan.owner, plan.consensus)
    resources, together = {"cpus": float(cpus)}, groups(*about)
    look = partial(_look, plan.spec, together)
    answer = registry.ask(
        "kdmesh_place_agents", look, mesh=plan.spec, groups=parts(*about), resources=resources, measured=measured
    )
    return _explicit(plan.spec, answer, together)


def _look(spec: MeshSpec, together: list[tuple[list[str], str]], answer: Any) -> None:
    """Raise ValueError for what is no placement, and MeshError for one that could not stand in the file."""
    lists = answer.values() if isinstance(answer, dict) and all(isinstance(host, str) for host in answer) else [None]
    if not all(isinstance(agents, list) and all(isinstance(name, str) for name in agents) for agents in lists):
        raise ValueError(f"it gave {answer!r:.60}, not lists of agents by host")
    _explicit(spec, answer, together)


def _explicit(
    spec: MeshSpec, placement: Mapping[str, list[str] | HostSpec], together: list[tuple[list[str], str]]
) -> dict[str, list[str]]:
    """Check a placement that the file spells out."""
    host_of: dict[str, str] = {}
    refuse(placement, "placement")
    held = {host: value.agents if isinstance(value, HostSpec) else value for host, value in placement.items()}
    for host, agents in held.items():
        for name in agents:
            where = f"placement.{host}"
            if name not in spec.agents:
                instead = nearest(name, spec.agents, "agents", several=True)
                raise MeshError(f"unknown agent {name!r}", where=where, instead=instead)
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
    _apart(held, together, "placement")
    return {host: list(agents) for host, agents in held.items() if agents}


def _apart(placed: Mapping[str, list[str]], together: list[tuple[list[str], str]], where: str) -> None:
    """Refuse hosts that part what must stay together."""
    host_of = {name: host for host, agents in placed.items() for name in agents}
    for agents, why in together:
        names, hosts = ", ".join(dict.fromkeys(agents)), sorted({host_of[name] for name in agents})
        if len(hosts) > 1:
            raise MeshError(
                f"{names} must share a host, since {why}, but are placed on {', '.join(hosts)}",
                where=where,
                instead="put them on one host" if where == "placement" else "one party for them",
            )
