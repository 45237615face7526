"""How often a consensus is made anew for who reads it, where the flows that leave it say so (`refresh`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.program import Publish, Repeat
from kdmesh.graph.reach import behind, consensus_from, readers

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.graph.program import Train

Nodes = dict[str, "ConsensusNode"]


def note(edges: list[Edge], nodes: Nodes) -> None:
    """Write down at each consensus the periods that its readers declare, those of another consensus too."""
    for edge in edges:
        if edge.renewed is None:
            continue
        if edge.target in nodes:
            raise MeshError(
                f"{edge} is read by no agent: how often {edge.target} is made anew is said where it is read",
                where=f"{edge.where}.refresh",
                instead=f"`refresh` on the flows from {edge.target}",
            )
    for name, node in nodes.items():
        found: dict[str, Edge] = {}
        for other in consensus_from(name, nodes):
            for edge in nodes[other].readers:
                if edge.target in nodes:
                    continue
                first = found.setdefault(edge.target, edge)
                if first.renewed != edge.renewed:
                    _differ(node, first, edge)
        periods = {edge.renewed for edge in found.values()}
        if len(periods) > 1 and ("step" in periods or node.owned):
            one = next(iter(found.values()))
            _differ(node, one, next(edge for edge in found.values() if edge.renewed != one.renewed))
        node.renewed = {agent: edge.renewed for agent, edge in found.items() if edge.renewed is not None}


def _differ(node: ConsensusNode, one: Edge, other: Edge) -> None:
    """Refuse readers that share what is made anew, at different times."""
    periods = " and ".join(edge.renewed or "as its sources publish" for edge in (one, other))
    raise MeshError(
        f"what {node.name} says is shared by {one} and {other}, which want it made anew at different times: {periods}",
        where=f"{other.where}.refresh",
        instead="one `refresh` for both, or a consensus for each",
    )


def wished(nodes: Nodes) -> dict[str, str]:
    """By consensus, the period that all who read it declare; sources in a circle with them then publish as often."""
    found: dict[str, str] = {}
    for name, node in nodes.items():
        periods = {node.renewed.get(agent) for agent in readers(name, nodes)}
        if len(periods) == 1 and (period := periods.pop()) is not None:
            found[name] = period
    return found


def check(edges: list[Edge], nodes: Nodes) -> None:
    """Refuse periods in which nothing could be kept, or nothing would change."""
    for edge in edges:
        node = nodes.get(edge.source)
        if node is None or edge.renewed is None:
            continue
        where = f"{edge.where}.refresh"
        if node.space in ("loss", "gradient") and edge.renewed != "step":
            what = f"in space {node.space} {node.name} weighs its sources by the losses of each batch"
            raise MeshError(what, where=where, instead="leave it out, or another space")
        ends = [end for end, _ in behind(edge, nodes)]
        live = next((end for end in ends if end.live or end.stale in ("snapshot", "recorded")), None)
        if live is not None and edge.renewed != "step":
            raise MeshError(
                f"{live.source} answers each batch anew, so that nothing of {node.name} can be kept for longer",
                where=where,
                instead=f"refresh: {edge.renewed} on the flow {live}, without `stale`",
            )
        if live is not None or not all(_pure(nodes[name]) for _, ways in behind(edge, nodes) for name in ways):
            continue
        if edge.renewed == "step" or (edge.renewed != "once" and all(end.refresh == "once" for end in ends)):
            raise MeshError(
                f"{node.name} would be made anew of the same values: its rule depends on nothing else",
                where=where,
                instead="leave it out: it is made anew whenever a source publishes",
            )


def _pure(node: ConsensusNode) -> bool:
    """Whether a rule says the same of the same values, as far as its offer tells."""
    return not (node.stateful or node.trained or node.timely) and node.factory.startswith("kdmesh.builtin")


def due(plan: Plan, stage: Stage, period: str) -> dict[str, list[str]]:
    """By consensus, the agents of a stage for whom it is made anew at the end of such a period."""
    found = {
        name: [agent for agent in stage.agents if node.renewed.get(agent) == period and agent in plan.host_of]
        for name, node in plan.consensus.items()
    }
    return {name: agents for name, agents in found.items() if agents}


def periods(plan: Plan, stage: Stage) -> dict[str, list[str]]:
    """The periods of a stage's readers, and who declares each."""
    found: dict[str, dict[str, None]] = {}
    for node in plan.consensus.values():
        for agent, period in node.renewed.items():
            if agent in stage.agents:
                found.setdefault(period, {})[agent] = None
    return {period: list(agents) for period, agents in found.items()}


def at_line(plan: Plan, line: Publish, name: str) -> bool:
    """Whether a publication in rounds makes a consensus anew: one of its sources publishes to it."""
    if line.to is not None and name not in consensus_from(line.to, plan.consensus):
        return False
    ends = {end.source for edge in plan.consensus[name].inputs for end, _ in behind(edge, plan.consensus)}
    return not ends.isdisjoint(line.agents)


def measured(plan: Plan, agents: list[str], to: str | None) -> list[str]:
    """The consensus nodes of which agreement is measured where ``agents`` publish in rounds, ``to`` one or to all: not
    of those whose party keeps it.
    """
    heard = [
        name
        for name, node in plan.consensus.items()
        if to in (None, name) and not node.unaligned and not {edge.source for edge in node.members}.isdisjoint(agents)
    ]
    return [name for name in heard if not plan.withheld(name)]


def publications(lines: list[Train | Publish | Repeat]) -> list[Publish]:
    """The lines that publish, also inside repetitions."""
    found: list[Publish] = []
    for line in lines:
        found += [line] if isinstance(line, Publish) else publications(line.body) if isinstance(line, Repeat) else []
    return found
