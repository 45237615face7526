"""What is drawn, as plain data: nodes, arrows and clusters, made from a plan. Every format shows one of these."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import networkx as nx

from kdmesh.errors import printable
from kdmesh.graph import private
from kdmesh.graph.edges import LABELS
from kdmesh.report.drawing import words
from kdmesh.report.drawing.groups import groups
from kdmesh.report.plan_data import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.report.drawing.words import Facts
    from kdmesh.spec import Ramp

KINDS = 4  # kinds of flow between the same two nodes that are drawn each


@dataclass(frozen=True)
class Node:
    """An agent, a consensus, or several that are drawn as one. ``kind``: agent or consensus; ``cluster``: "" for none.

    ``lines``: what there is to say below the title; ``members``: the names.
    """

    id: str
    kind: str
    title: str
    lines: tuple[str, ...]
    members: tuple[str, ...]
    frozen: bool = False
    private: bool = False
    cluster: str = ""


@dataclass(frozen=True)
class Arrow:
    """Flows from one node to another. ``kind``: target, input, or follows (weights that follow or share others').

    ``both``: the same flows go back as well; ``lines``: the label.
    """

    source: str
    target: str
    kind: str
    lines: tuple[str, ...]
    private: bool = False
    both: bool = False


@dataclass(frozen=True)
class Cluster:
    """Stages that are drawn as one box around their nodes."""

    id: str
    title: str


@dataclass(frozen=True)
class Scene:
    """A drawing before it has a form."""

    name: str
    description: str
    summary: str
    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    clusters: tuple[Cluster, ...]


def scene(plan: Plan, parameters: Mapping[str, int] | None = None) -> Scene:
    """Return what to draw of a plan. ``parameters``: how many each agent has, where that is known."""
    facts = words.agents(plan, parameters or {})
    facts |= {name: words.consensus(node, "train") for name, node in plan.consensus.items()}
    facts |= {name: words.pool(pool) for name, pool in plan.merging.pools.items()}
    stage_of = _stages(plan)
    size = {name: (len(stage.weights) > 1, len(stage.weights)) if stage else None for name, stage in stage_of.items()}
    flows = [edge for edge in plan.edges if edge.source != LABELS]
    known: dict[tuple[int, float | Ramp], str] = {}
    said = [(edge, words.loss(edge, known), words.carried(edge, edge.source in plan.spec.agents)) for edge in flows]
    weights = [(flow, words.weights(flow)) for flow in plan.merging.flows]
    pairs = [(edge.source, edge.target, loss + text) for edge, loss, text in said]
    found = groups(facts, size, pairs + [(flow.source, flow.target, text) for flow, text in weights])
    home = {name: f"n{number}" for number, group in enumerate(found) for name in group}
    clusters, cluster_of = _clusters(plan, found, stage_of)
    nodes = []
    for group in found:
        told = words.common([facts[name] for name in group])
        title = words.title(group) + (f" × {len(group):,}" if len(group) > 1 else "")
        lines = tuple(printable(text, breaks=False) for text in _lines(told))
        kind = "agent" if group[0] in plan.spec.agents else "consensus"
        held = {"frozen": bool(facts[group[0]].get("frozen")), "private": bool(facts[group[0]].get("private"))}
        nodes.append(Node(home[group[0]], kind, title, lines, tuple(group), **held, cluster=cluster_of[group[0]]))
    members = {node.id: node.members for node in nodes}
    arrows = [*_flows(plan, said, home, members), *_follows(plan, home, members)]
    many = len(plan.consensus) + len(plan.merging.pools)
    nouns = {"agent": len(plan.spec.agents), "consensus node": many, "flow": len(plan.edges)}
    nouns |= {"weight flow": len(plan.merging.flows)}
    nouns |= {"stage": len(plan.stages), "host": len(plan.hosts) if len(plan.hosts) > 1 else 0}
    summary = ", ".join(count(number, noun) for noun, number in nouns.items() if number)
    description = printable(plan.spec.description, breaks=False)
    return Scene(plan.spec.name, description, summary, tuple(nodes), tuple(_two_ways(arrows)), tuple(clusters))


def _lines(told: Facts) -> list[str]:
    """A node's facts as lines: what it is in the first."""
    first = " ".join(part for part in (told.get("frozen"), told.get("role")) if part)
    return [first, *(value for key, value in told.items() if key not in ("role", "frozen") and value)]


def _stages(plan: Plan) -> dict[str, Stage | None]:
    """The stage of each agent; of a consensus that which it is heard and formed in, if it is one."""
    of_weights = {weights: stage for stage in plan.stages for weights in stage.weights}
    found = {name: of_weights.get(plan.owner[name]) for name in plan.spec.agents}
    for name, node in plan.consensus.items():
        if name in of_weights:
            found[name] = of_weights[name]
            continue
        live = {id(found.get(edge.source)) for edge in node.inputs if edge.refresh != "once"}
        heard = [stage for edge in node.readers if (stage := found.get(edge.target)) is not None and id(stage) in live]
        found[name] = heard[0] if heard and all(stage is heard[0] for stage in heard) else None
    for name in plan.merging.pools:
        ends = [found.get(reader) for reader in plan.merging.readers(name)]
        found[name] = ends[0] if all(stage is ends[0] for stage in ends) else None
    return found


def _clusters(
    plan: Plan, found: Sequence[Sequence[str]], stage_of: Mapping[str, Stage | None]
) -> tuple[list[Cluster], dict[str, str]]:
    """Return the clusters, and the one of each node, "" for none.

    Stages that a group has members in are one cluster, and so are those of single weights that run side by side.
    """
    union = nx.utils.UnionFind(stage.name for stage in plan.stages)
    for group in found:
        names = [stage.name for name in group if (stage := stage_of[name]) is not None]
        if len(names) > 1:
            union.union(*names)
    first: dict[int, str] = {}
    for stage in plan.stages:
        if len(stage.weights) == 1:
            union.union(stage.name, first.setdefault(stage.generation, stage.name))
    parts: dict[str, list[Stage]] = defaultdict(list)
    for stage in plan.stages:
        parts[union[stage.name]].append(stage)
    ids = {root: f"s{number}" for number, root in enumerate(parts)}
    clusters = [Cluster(ids[root], words.stage(stages)) for root, stages in parts.items()]
    return clusters, {name: ids[union[stage.name]] if stage else "" for name, stage in stage_of.items()}


def _flows(
    plan: Plan,
    said: Sequence[tuple[Edge, str, str]],
    home: Mapping[str, str],
    members: Mapping[str, tuple[str, ...]],
) -> list[Arrow]:
    """An arrow for each kind of flow between two nodes of the drawing."""
    hidden = private.private_streams(plan.spec)
    kinds: dict[tuple[str, str], dict[tuple[str, str, str, bool], list[Edge]]]
    kinds = defaultdict(lambda: defaultdict(list))
    for edge, loss, carried in said:
        kinds[home[edge.source], home[edge.target]][loss, carried, edge.as_, edge.stream in hidden].append(edge)
    arrows = []
    for (source, target), found in kinds.items():
        if len(found) > KINDS:
            together = [edge for edges in found.values() for edge in edges]
            found = {(f"{len(found):,} kinds of flow", "", "target", any(key[3] for key in found)): together}
        for (loss, carried, as_, secret), edges in found.items():
            pairs = {(edge.source, edge.target) for edge in edges}
            how = words.spread(pairs, members[source], members[target])
            crosses = ", ".join(part for part in (carried, words.seen(edges)) if part)
            lines = tuple(printable(part, breaks=False) for part in (loss, crosses, how) if part)
            kind = "input" if as_ == "gate" else as_  # a gate is informed, as a rule is
            arrows.append(Arrow(source, target, kind, lines, private=secret))
    return arrows


def _follows(plan: Plan, home: Mapping[str, str], members: Mapping[str, tuple[str, ...]]) -> list[Arrow]:
    """Arrows between weights: those that follow others, those that are the same, and those that flow."""
    kinds: dict[tuple[str, str, str], set[tuple[str, str]]] = defaultdict(set)
    for name, agent in plan.spec.agents.items():
        if agent.ema is not None:
            text = f"weights follow, decay {agent.ema.decay:g}"
            kinds[home[agent.ema.of], home[name], text].add((agent.ema.of, name))
        elif (owner := plan.owner[name]) != name:
            kinds[home[owner], home[name], "same weights"].add((owner, name))
    for flow in plan.merging.flows:
        kinds[home[flow.source], home[flow.target], words.weights(flow)].add((flow.source, flow.target))
    return [
        Arrow(source, target, "follows", (text, *filter(None, [words.spread(pairs, members[source], members[target])])))
        for (source, target, text), pairs in kinds.items()
    ]


def _two_ways(arrows: Sequence[Arrow]) -> list[Arrow]:
    """Two arrows that say the same in both directions as one with two heads."""
    found: dict[Arrow, None] = dict.fromkeys(arrows)
    for arrow in arrows:
        back = replace(arrow, source=arrow.target, target=arrow.source)
        if arrow in found and back in found and arrow.source != arrow.target:
            first = min(arrow, back, key=lambda one: int(one.source[1:]))
            second = back if first == arrow else arrow
            found = {replace(one, both=True) if one == first else one: None for one in found if one != second}
    return list(found)
