"""Parties: a host for each, where consensus nodes of several are formed, and what may cross between them.

Between parties only publications travel, at the times that the file names, and weights that flow. What one party's
agents say of a stream goes to the host that combines it, and no further: readers elsewhere are sent the consensus.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.edges import LABELS
from kdmesh.graph.private import pooled
from kdmesh.graph.reach import readers, unreleased
from kdmesh.graph.sources import below
from kdmesh.spec.parties import COORDINATOR, OWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.merging import Merging
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.reach import Nodes
    from kdmesh.spec import MeshSpec
    from kdmesh.spec.data import ShardSpec


def hosts(spec: MeshSpec) -> dict[str, list[str]]:
    """The agents of every party by its name, and of the coordinator those that are left; refuses what cannot be."""
    party_of: dict[str, str] = {}
    for name, party in spec.parties.items():
        if name == COORDINATOR:
            raise MeshError(f"{name!r} is who is of no party", where=f"parties.{name}", instead="another name")
        for agent in party.agents:
            where = f"parties.{name}.agents"
            if agent not in spec.agents:
                instead = nearest(agent, spec.agents, "agents", several=True)
                raise MeshError(f"unknown agent {agent!r}", where=where, instead=instead)
            if agent in party_of:
                twice = "twice here" if party_of[agent] == name else f"of {party_of[agent]} too"
                raise MeshError(f"{agent} is {twice}", where=where, instead="each agent in one party")
            party_of[agent] = name
    if spec.placement != "auto":
        what = "`parties` say where each agent lives, so `placement` has no effect"
        raise MeshError(what, where="placement", instead="leave it out")
    rest = [agent for agent in spec.agents if agent not in party_of]
    found = {name: [agent for agent in spec.agents if party_of.get(agent) == name] for name in spec.parties}
    return found | {COORDINATOR: rest}


def settle(spec: MeshSpec, edges: list[Edge], nodes: Nodes, merging: Merging) -> dict[str, list[str]]:
    """The hosts of a mesh with parties; sets each consensus' ``home``, and refuses what would cross at every step.

    A consensus is formed where all that it combines is; what several parties say meets at the coordinator. What is
    released is sent to wherever it is combined further, as to anyone.
    """
    placed = hosts(spec)
    host_of = {agent: host for host, agents in placed.items() for agent in agents}
    for node in nodes.values():
        sources = {host_of[source] for source in unreleased(node.name, nodes)}
        ends = {host_of[reader] for reader in readers(node.name, nodes)}
        if len(sources | ends) > 1 or (node.releases and len(sources) == 1):
            node.home = next(iter(sources)) if len(sources) == 1 else COORDINATOR
    for node in nodes.values():
        if node.home and {host_of[reader] for reader in readers(node.name, nodes)} != {node.home}:
            _refuse(node, nodes)
    for edge in edges:
        _refuse_steps(edge, host_of, nodes)
    if not placed[COORDINATOR] and not merging.pools and all(node.home != COORDINATOR for node in nodes.values()):
        del placed[COORDINATOR]
    return placed


def places(name: str, nodes: Nodes, host_of: Mapping[str, str]) -> dict[str, None]:
    """Where a signal that is sent to an agent or a consensus arrives: where that lives, or is formed."""
    node = nodes.get(name)
    if node is None:
        return {host_of[name]: None} if name in host_of else {}
    return {node.home: None} if node.home else {host_of[one]: None for one in readers(name, nodes) if one in host_of}


def check_streams(spec: MeshSpec) -> None:
    """Refuse what would choose among samples that only a party has by what only it knows of them."""
    for name, stream in spec.streams.items():
        if OWN in below(spec, name):
            for field in ("where", "only", "without", "select"):
                if getattr(stream, field) is not None:
                    what = f"samples of {OWN!r} are each party's own, and nobody else knows which of them these are"
                    instead = f"leave it out; which samples {OWN!r} has, each party's `data` says"
                    raise MeshError(what, where=f"streams.{name}.{field}", instead=instead)
            if stream.shards is not None:
                _check_shards(spec, name, stream.shards)
    for name, party in spec.parties.items():
        if party.data is not None and spec.data is None:
            what = "samples of its own, and there are no public ones to agree on"
            raise MeshError(what, where=f"parties.{name}.data", instead="data: {dataset: ...}")


def _check_shards(spec: MeshSpec, name: str, shards: ShardSpec) -> None:
    """Refuse a division of what parties have for themselves that is not within each, or goes by what samples are."""
    where = f"streams.{name}.shards"
    if shards.by != "iid":
        what = f"samples of {OWN!r} are each party's own, and nobody else knows which of them are alike"
        raise MeshError(what, where=f"{where}.by", instead="by: iid, which goes by their places alone")
    if pooled(spec, name):
        what = "samples of several parties stand in one place here, so that no agent's part would be its party's"
        raise MeshError(what, where=where, instead=f"shards of a stream `of: {OWN}`, which is not pooled")
    divided = next((one for one in below(spec, name) if one in spec.streams and spec.streams[one].shards), None)
    if divided is not None:
        raise MeshError(f"{divided} is divided already", where=where, instead="divide one of the two")
    holders = {agent: name for name, party in spec.parties.items() if party.data is not None for agent in party.agents}
    if (stranger := next((agent for agent in shards.of if agent not in holders), None)) is not None:
        what = f"{stranger} is of no party that has samples of its own"
        raise MeshError(what, where=f"{where}.of", instead=nearest(stranger, holders, "agents of such", several=True))
    counts = Counter(holders[agent] for agent in shards.of)
    if max(counts.values(), default=0) < 2:
        what = f"each party has one of these agents, so that nothing of {OWN!r} is divided"
        raise MeshError(what, where=f"{where}.of", instead="several agents of a party, or leave `shards` out")


def _refuse(node: ConsensusNode, nodes: Nodes) -> None:
    """Refuse a consensus of several hosts that only its readers could form."""
    where = f"consensus.{node.name}"
    inner = [
        edge.source
        for edge in node.inputs
        if edge.source in nodes and nodes[edge.source].home != node.home and not nodes[edge.source].releases
    ]
    if inner:
        home = nodes[inner[0]].home or "its readers' host"
        what = f"{node.name} is formed at {node.home}, of {inner[0]}, which is formed at {home}"
        raise MeshError(what, where=where, instead=f"let what {inner[0]} combines flow into {node.name} itself")
    why = ""
    if node.trained:
        why = "has weights, which train with its readers"
    elif node.space in ("loss", "gradient"):
        why = f"weighs what its readers' losses say (space {node.space})"
    elif node.timely:
        why = f"asks for its reader's {' and '.join(node.needs)}"
    elif node.renewed:
        why = "is made anew at times that its readers declare (`refresh`)"
    elif node.needs_errors:
        why = "asks for its members' errors on validation"
    if why:
        what = f"{node.name} is formed at {node.home}, away from some of its readers, and {why}"
        raise MeshError(what, where=where, instead="another rule, or its sources and readers in one party")


def _refuse_steps(edge: Edge, host_of: dict[str, str], nodes: Nodes) -> None:
    """Refuse a flow that would need another party at every step."""
    if edge.source == LABELS or edge.source in nodes:
        return
    node = nodes.get(edge.target)
    end = (
        host_of[edge.target]
        if node is None
        else node.home or host_of[next(iter(readers(node.name, nodes)), edge.source)]
    )
    if end == host_of[edge.source]:
        return
    about = {"where": edge.where, "instead": "refresh: round, epoch, `N steps` or once"}
    if edge.as_ == "gate":
        raise MeshError(f"a gate asks {edge.source}, at {host_of[edge.source]}, at each step", **about)
    if edge.refresh == "step":
        what = f"{edge} would cross from {host_of[edge.source]} to {end} at each step"
        raise MeshError(what, where=f"{edge.where}.refresh", instead=about["instead"])
    if edge.stale == "snapshot":
        what = f"{edge} reads old weights (`stale: snapshot`), which would leave {host_of[edge.source]}"
        raise MeshError(what, where=f"{edge.where}.stale", instead="stale: publish")


def variant(name: str, reader: str, nodes: Nodes) -> str:
    """Under which name a reader elsewhere finds a consensus: its own, where it is sent another one than others; else
    "".
    """
    node = nodes[name]
    alone = not node.include_self and any(edge.source == reader for edge in node.members)
    return reader if node.per_target or alone else ""
