"""Stages: weights that must train together, and the order in which stages run.

Agents are contracted onto their weights. Strongly connected components supply the default of `refresh`: `step` inside
one, `once` between. A flow with `once` waits for its source's stage; any other binds its trainable ends into one.
One on a stream that is written once also waits for the writer's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Protocol

import networkx as nx

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.edges import LABELS, Edge
from kdmesh.graph.sources import written_before

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from kdmesh.spec import MeshSpec


class Link(Protocol):
    """What binds stages or orders them: a flow of a signal, or of weights."""

    @property
    def source(self) -> str:
        """The node that it leaves."""

    @property
    def target(self) -> str:
        """The node at which it ends."""

    @property
    def stream(self) -> str:
        """The stream that it is made on."""

    @property
    def where(self) -> str:
        """Where in the file it stands."""

    @property
    def refresh(self) -> str | None:
        """How often; None where that is said elsewhere."""


@dataclass
class WeightSets:
    """What the stage graph is made of: weights (named after the agent that owns them) and trained consensus nodes."""

    owner: dict[str, str]  # agent -> weights
    trainable: set[str]  # weights and consensus nodes that change
    agents: dict[str, list[str]] = field(default_factory=dict)  # weights -> its agents

    def of(self, node: str) -> str:
        """The weight set of an agent; a consensus node itself."""
        return self.owner.get(node, node)


def weight_sets(spec: MeshSpec, trained: set[str]) -> WeightSets:
    """Contract agents onto weights, following `weights_of` to its end. ``trained``: consensus nodes with weights."""
    owner: dict[str, str] = {}
    for name in spec.agents:
        seen = [name]
        while (parent := spec.agents[seen[-1]].weights_of) is not None:
            where = f"agents.{seen[-1]}.weights_of"
            if parent not in spec.agents:
                raise MeshError(
                    f"unknown agent {parent!r}",
                    where=where,
                    instead=nearest(parent, spec.agents, "name an agent of this mesh"),
                )
            if parent in seen:
                raise MeshError(f"weights are shared in a cycle: {' -> '.join([*seen, parent])}", where=where)
            seen.append(parent)
        owner[name] = seen[-1]
    found = WeightSets(owner, {name for name in owner.values() if spec.agents[name].update != "frozen"} | trained)
    for agent, weights in owner.items():
        found.agents.setdefault(weights, []).append(agent)
    return found


def structure(spec: MeshSpec, edges: Sequence[Link], found: WeightSets) -> nx.DiGraph:
    """The weights graph: weight sets and consensus nodes, an arrow wherever knowledge, weights or samples pass."""
    of = found.owner.get
    arrows = {(of(edge.source, edge.source), of(edge.target, edge.target)): None for edge in edges}
    for name, agent in spec.agents.items():
        if agent.ema is not None:
            arrows[found.of(agent.ema.of), name] = None
    for edge in edges if any(stream.generated_by for stream in spec.streams.values()) else ():
        arrows.update(((found.of(writer), found.of(edge.target)), None) for writer, _ in _writers(spec, edge))
    graph = nx.DiGraph()
    graph.add_nodes_from(found.agents)
    graph.add_nodes_from(spec.consensus)
    graph.add_edges_from(arrow for arrow in arrows if arrow[0] != LABELS)
    return graph


def default_refresh(
    spec: MeshSpec,
    edges: list[Edge],
    found: WeightSets,
    graph: nx.DiGraph,
    wished: Mapping[str, str],
    fresh: Collection[str],
) -> None:
    """Fill in `refresh` on the edges that leave agents: `step` inside a strongly connected component, else `once`.

    Where a gradient is to pass (`detach: false`) it is `step` too: what is stored carries none. On a stream
    that an agent writes nothing is stored: frozen sources are live, others leave a snapshot. ``wished``: by
    consensus, how often its readers want it made anew; into it, it is that inside a component. ``fresh``: agents that
    see samples in more ways than one: frozen ones of them are live too.
    """
    component = {node: number for number, nodes in enumerate(nx.strongly_connected_components(graph)) for node in nodes}
    for edge in edges:
        if edge.refresh is None and edge.source in spec.agents:
            stream = spec.streams.get(edge.stream)
            written = stream is not None and stream.generated_by is not None
            anew = written or (edge.source in fresh and not edge.unaligned and edge.stale is None)
            frozen = anew and found.of(edge.source) not in found.trainable
            inside = frozen or not edge.detach or component[found.of(edge.source)] == component[found.of(edge.target)]
            edge.refresh = (wished.get(edge.target, "step") if edge.detach else "step") if inside else "once"
            if edge.refresh != "step" and edge.stale is None:
                edge.stale = "snapshot" if written else "publish"


def bind(spec: MeshSpec, edges: Sequence[Link], found: WeightSets, trained: set[str]) -> dict[str, str]:
    """Return the stage of every trainable weight set, named after the stage's first weight set in declared order."""
    union = nx.utils.UnionFind(sorted(found.trainable))
    members: dict[str, list[str]] = defaultdict(list)  # consensus -> weight sets that a live source binds
    live = _live_consensus(spec, edges, found)
    for edge in edges:
        if edge.refresh == "once":
            continue
        source, target = found.of(edge.source), found.of(edge.target)
        if edge.target in spec.agents:
            if edge.source in spec.agents and {source, target} <= found.trainable:
                union.union(source, target)
            elif edge.source in spec.consensus and (edge.source in live or edge.source in trained):
                members[edge.source].append(target)
        elif edge.source in spec.agents or edge.source in live:
            members[edge.target].append(source)
    _merge(union, members, found, trained)
    for name, agent in spec.agents.items():
        if agent.ema is not None and found.of(agent.ema.of) in found.trainable:
            union.union(found.of(agent.ema.of), name)
    for edge in edges if any(stream.generated_by for stream in spec.streams.values()) else ():
        for writer, refresh in _writers(spec, edge):
            if refresh != "once" and {found.of(writer), found.of(edge.target)} <= found.trainable:
                union.union(found.of(writer), found.of(edge.target))
    order = {name: number for number, name in enumerate([*spec.agents, *spec.consensus])}
    first: dict[str, str] = {}
    declared = sorted(found.trainable, key=order.__getitem__)
    return {weight_set: first.setdefault(union[weight_set], weight_set) for weight_set in declared}


def _live_consensus(spec: MeshSpec, edges: Sequence[Link], found: WeightSets) -> set[str]:
    """Consensus nodes that a source which still trains reaches without waiting, also through another consensus."""
    graph = nx.DiGraph()
    start: set[str] = set()
    for edge in edges:
        if edge.target in spec.consensus:
            if edge.source in spec.consensus:
                graph.add_edge(edge.source, edge.target)
            elif edge.refresh != "once" and found.of(edge.source) in found.trainable:
                start.add(edge.target)
    reached = set(start)
    for name in start & set(graph):
        reached |= nx.descendants(graph, name)
    return reached


def _merge(union: nx.utils.UnionFind, members: dict[str, list[str]], found: WeightSets, trained: set[str]) -> None:
    """Unite what each live consensus binds; a consensus that graph another passes its own members on."""

    def trainable(name: str, path: tuple[str, ...] = ()) -> set[str]:
        out = {name} if name in trained else set()
        for weight_set in members.get(name, ()):
            if weight_set in found.trainable:
                out.add(weight_set)
            elif weight_set in members and weight_set not in path:
                out |= trainable(weight_set, (*path, name))
        return out

    for name in members:
        together = trainable(name)
        if len(together) > 1:
            union.union(*together)


def generations(
    spec: MeshSpec,
    edges: Sequence[Link],
    found: WeightSets,
    stage: dict[str, str],
    shared: Iterable[list[str]] = (),
) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Return each stage's generation (0 first) and the stages it waits for; `once` inside a stage is refused.

    ``shared``: agents that read one consensus with a state. Their stages take turns, in declared order where nothing
    else orders them: what it has counted must not depend on who is faster.
    """
    # Where a node's values come to be: in a stage, or, for a consensus and what is frozen, in a place of its own.
    home: dict[str, object] = {
        name: stage.get(found.of(name), ("outside", name)) for name in (*spec.agents, *spec.consensus)
    }
    arrows: dict[tuple[object, object], None] = {}
    readers: dict[str, dict[object, str]] = defaultdict(dict)  # consensus -> a reader of it in each place
    for edge in edges:
        if edge.source in spec.consensus:
            arrows[("outside", edge.source), home[edge.target]] = None
            if edge.target in spec.agents:
                readers[edge.source].setdefault(home[edge.target], edge.target)
    for edge in edges:
        if edge.refresh != "once" or found.of(edge.source) not in stage:
            continue
        source, target = home[edge.source], home[edge.target]
        inside = edge.target if target == source else readers.get(edge.target, {}).get(source)
        if inside is not None:
            raise MeshError(
                f"once inside a stage: {edge.source} -> {inside}",
                where=f"{edge.where}.refresh",
                instead="step, epoch or round: these weights train together, so neither can finish first",
            )
        arrows[source, target] = None
    for edge in edges:
        for writer, refresh in _writers(spec, edge):
            if refresh == "once" and found.of(writer) in stage and home[writer] != home[edge.target]:
                arrows[home[writer], home[edge.target]] = None
    waits = nx.DiGraph()
    waits.add_nodes_from(dict.fromkeys(stage.values()))
    waits.add_edges_from(arrows)
    for agents in shared:
        turns = [home[name] for name in spec.agents if name in agents and found.of(name) in stage]
        for first, second in combinations(dict.fromkeys(turns), 2):
            if not nx.has_path(waits, first, second) and not nx.has_path(waits, second, first):
                waits.add_edge(first, second)
    return _levels(waits, set(stage.values()))


def _writers(spec: MeshSpec, edge: Link) -> list[tuple[str, str | None]]:
    """Who writes the stream of an edge, and what that is written from, each with how often it does; and whom filters
    of what is written ask, who have finished by then."""
    streams = [spec.streams.get(name) for name in (*written_before(spec, edge.stream), edge.stream)]
    written = [one for one in streams if one is not None and one.generated_by]
    asked = [name for one in written for ref in one.keep or () for name in ref.agents if name in spec.agents]
    writers: list[tuple[str, str | None]] = [(str(one.generated_by), one.refresh) for one in written]
    others = [name for name in asked if name not in dict(writers)]
    return [*writers, *((name, "once") for name in others)]


def _levels(waits: nx.DiGraph, stages: set[str]) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Longest paths over the stages; consensus nodes only pass on."""
    try:
        order = list(nx.topological_sort(waits))
    except nx.NetworkXUnfeasible:
        names = [n if isinstance(n, str) else n[1] for n, *_ in nx.find_cycle(waits)]
        raise MeshError(
            f"stages wait for each other in a cycle: {' -> '.join([*names, names[0]])}",
            where="flows",
            instead="give one of these flows a refresh other than `once`",
        ) from None
    level: dict[object, int] = {}
    before: dict[str, set[str]] = {name: set() for name in stages}
    passed: dict[object, set[str]] = {}
    for node in order:
        ahead: set[str] = set()
        depth = 0
        for parent in waits.predecessors(node):
            if parent in stages:
                ahead.add(parent)
                depth = max(depth, level[parent] + 1)
            else:
                ahead |= passed[parent]
                depth = max(depth, level[parent])
        level[node] = depth
        if node in stages:
            before[node] = ahead
        else:
            passed[node] = ahead
    return {name: level[name] for name in stages}, before
