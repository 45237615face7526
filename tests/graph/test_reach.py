"""The walk back from an edge, through consensus nodes that combine others, to the agents behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kdmesh.graph.edges import Edge
from kdmesh.graph.nodes import ConsensusNode
from kdmesh.graph.plan import Plan
from kdmesh.graph.reach import behind, sources

Nodes = dict[str, ConsensusNode]


def layers(depth: int) -> dict[str, Any]:
    """Two teachers, so many layers of two consensus nodes that each combine the layer before, and a student."""
    flows: list[dict[str, Any]] = [{"from": "labels", "to": name, "objective": "ce"} for name in ("t0", "t1")]
    below = ["t0", "t1"]
    for layer in range(depth):
        names = [f"c{layer}a", f"c{layer}b"]
        flows += [{"from": below, "to": name} for name in names]
        below = names
    flows.append({"from": below[0], "to": "s", "objective": "kl"})
    agents = {name: {"model": "mlp"} for name in ("t0", "t1", "s")}
    rules = {f"c{layer}{side}": {"rule": "mean"} for layer in range(depth) for side in "ab"}
    return {"data": "digits", "agents": agents, "consensus": rules, "flows": flows}


def one_by_one(edge: Edge, nodes: Nodes, through: tuple[str, ...] = ()) -> Iterator[tuple[Edge, tuple[str, ...]]]:
    """Every way by itself."""
    if edge.source not in nodes:
        yield edge, through
    for inner in nodes[edge.source].inputs if edge.source in nodes else ():
        yield from one_by_one(inner, nodes, (*through, edge.source))


def test_each_edge_is_given_once_with_all_the_nodes_on_its_ways(plan: Callable[[dict[str, Any]], Plan]) -> None:
    made = plan(layers(4))
    edge = made.edges[-1]
    ways = list(one_by_one(edge, made.consensus))
    assert edge.target == "s" and len(ways) == 16
    wanted: dict[int, set[str]] = {}
    for end, through in ways:
        wanted.setdefault(end.id, set()).update(through)
    found = behind(edge, made.consensus)
    assert [(end.id, set(through)) for end, through in found] == list(wanted.items())
    assert "c3b" not in found[0][1] and {"c3a", "c2a", "c2b", "c0a"} <= found[0][1]
    assert behind(made.edges[0], made.consensus) == [(made.edges[0], frozenset())]


def test_many_layers_are_walked_once(plan: Callable[[dict[str, Any]], Plan]) -> None:
    """There are 2**40 ways."""
    made = plan(layers(40))
    assert sources(made.edges[-1], made.consensus) == ["t0", "t1"]
    assert [len(through) for _, through in behind(made.edges[-1], made.consensus)] == [78, 78, 78, 78]
