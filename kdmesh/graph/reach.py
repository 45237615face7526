"""Which agents' signals reach which agents, also through consensus nodes that combine other consensus nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.graph.edges import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode

    Nodes = Mapping[str, ConsensusNode]


def behind(edge: Edge, nodes: Nodes, *, members: bool = False) -> list[tuple[Edge, frozenset[str]]]:
    """The edges whose signals an edge carries, each once, depth first, and the consensus nodes on all ways to each.

    An edge that leaves no consensus is itself. ``members``: only what is combined; else also what informs a rule.
    """
    found: list[Edge] = []
    routes: dict[str, set[str]] = {}  # the nodes through which a node is read, itself not

    def walk(edge: Edge) -> None:
        node = nodes.get(edge.source)
        if node is None:
            found.append(edge)
            return
        new = node.name not in routes
        through = routes.setdefault(node.name, set())
        through.update({edge.target} & routes.keys())
        if new:
            for inner in node.members if members else node.inputs:
                walk(inner)

    walk(edge)
    return [(end, _ways(end.target, routes)) for end in found]


def _ways(node: str, routes: Mapping[str, set[str]]) -> frozenset[str]:
    """A consensus node, and those through which it is read, also through each other; nothing for anyone else."""
    ways = [node] if node in routes else []
    for name in ways:  # grows while it is read
        ways += [other for other in routes[name] if other not in ways]
    return frozenset(ways)


def sources(edge: Edge, nodes: Nodes) -> list[str]:
    """The agents whose signals are combined into an edge's, each once, in declared order; none behind labels."""
    ends = (found.source for found, _ in behind(edge, nodes, members=True))
    return list(dict.fromkeys(end for end in ends if end != LABELS))


def closure(edges: Iterable[Edge], nodes: Nodes) -> list[Edge]:
    """Some edges, and those into the consensus nodes that they leave, each once."""
    found, seen = list(edges), set[str]()
    for edge in found:  # grows while it is read
        if edge.source in nodes and edge.source not in seen:
            seen.add(edge.source)
            found += nodes[edge.source].inputs
    return found


def readers(name: str, nodes: Nodes) -> list[str]:
    """The agents that a signal sent to ``name`` reaches: itself, or those behind a consensus, each once."""
    found: dict[str, None] = {}
    for node in consensus_from(name, nodes):
        found.update((edge.target, None) for edge in nodes[node].readers if edge.target not in nodes)
    return list(found) if name in nodes else [name]


def parties(name: str, nodes: Nodes) -> list[str]:
    """The agents that send to a consensus, or read it, also through another one, each once."""
    senders = (end.source for edge in nodes[name].inputs for end, _ in behind(edge, nodes))
    return [agent for agent in dict.fromkeys((*senders, *readers(name, nodes))) if agent != LABELS]


def consensus_from(name: str, nodes: Nodes) -> list[str]:
    """The consensus nodes that a signal sent to ``name`` passes, itself first if it is one, each once."""
    found = [name] if name in nodes else []
    for node in found:  # grows while it is read
        found += [edge.target for edge in nodes[node].readers if edge.target in nodes and edge.target not in found]
    return found


def depth(name: str, nodes: Nodes) -> int:
    """How many consensus nodes are behind one another in a consensus, itself among them."""
    return 1 + max((depth(edge.source, nodes) for edge in nodes[name].inputs if edge.source in nodes), default=0)


def released(name: str, nodes: Nodes) -> bool:
    """Whether what a consensus says is made of answers that it, or one behind it, releases with noise."""
    inner = (edge.source for edge in nodes[name].inputs if edge.source in nodes)
    return bool(nodes[name].releases) or any(released(one, nodes) for one in inner)


def unreleased(name: str, nodes: Nodes) -> set[str]:
    """The agents whose answers a consensus combines as they are, and not as another one has released them."""
    found, within = set[str](), [name]
    for one in within:  # grows while it is read
        for source in (edge.source for edge in nodes[one].inputs if edge.source != LABELS):
            if source not in nodes:
                found.add(source)
            elif not nodes[source].releases and source not in within:
                within.append(source)
    return found


def speaker(name: str, nodes: Nodes) -> str:
    """The agent in whose tokens a node speaks: itself, or, of a consensus, any of its members, which read alike."""
    while name in nodes:
        name = nodes[name].members[0].source
    return name
