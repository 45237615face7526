"""What each agent is in a mesh, read off its flows and texts: teacher, writer, student, peer, assistant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.graph.reach import sources
from kdmesh.graph.sources import written_before

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdmesh.graph.plan import Plan

TAUGHT = ("student", "assistant", "peer")  # roles of agents that are compared with themselves without teachers


def teachers_of(plan: Plan, agent: str) -> list[str]:
    """The agents whose signals reach an agent, also through consensus nodes; itself left out."""
    return _teachers(plan, [agent])[agent]


def roles(plan: Plan) -> dict[str, str]:
    """What each agent is in this mesh: roles are read off the flows."""
    taught_by = _teachers(plan, plan.spec.agents)
    readers: dict[str, list[str]] = {name: [] for name in taught_by}
    for name, teachers in taught_by.items():
        for other in teachers:
            readers[other].append(name)
    of_weights = {weights: stage.name for stage in plan.stages for weights in stage.weights}
    stage = {name: of_weights.get(owner) for name, owner in plan.owner.items()}
    itself = {edge.source for edge in plan.edges if edge.source == edge.target}
    specs = plan.spec.agents
    averages = {name for name, owner in plan.owner.items() if specs[name].ema or specs[owner].update == "merged"}
    found, texts = dict[str, str](), _by_texts(plan)
    by_weights = {  # who learns with weights of others that learn
        target
        for target, sources in plan.merging.sources().items()
        if specs[target].learns and any(plan.owner[one] in plan.trainable for one in sources if one != target)
    }
    for name, teachers in taught_by.items():
        inside = [other for other in teachers if stage[name] is not None and stage[other] == stage[name]]
        if name in plan.language_models:
            found[name] = "writer"
        elif name in averages:
            found[name] = "average"
        elif not teachers and name in by_weights:
            found[name] = "peer"
        elif not teachers:
            found[name] = "teacher" if readers[name] else "student" if name in itself else texts.get(name, "alone")
        elif any(other not in averages for other in inside):
            found[name] = "student" if len(inside) < len(teachers) else "peer"
        else:
            later = any(stage[other] != stage[name] for other in readers[name])
            found[name] = "assistant" if later else "student"
    return found


def _by_texts(plan: Plan) -> dict[str, str]:
    """What agents are by the texts that they write for others and learn of others, by whatever flow."""
    learns: set[str] = set()
    writes: set[str] = set()
    for edge in plan.edges:
        if edge.target in plan.owner and edge.stream in plan.spec.streams:
            apart = {name for name, owner in plan.owner.items() if owner != plan.owner[edge.target]}
            if others := apart & _authors(plan, edge.stream):
                learns.add(edge.target)
            for other in written_before(plan.spec, edge.stream):
                others |= apart & _authors(plan, other)
            writes |= others
    found = {name: "assistant" if name in writes else "student" for name in learns}
    return dict.fromkeys(writes, "writer") | found


def _authors(plan: Plan, stream: str) -> set[str]:
    """The agents that write the texts of a stream, also through what is made of several."""
    spec = plan.spec.streams.get(stream)
    if spec is None or spec.generated_by is None:
        return set()
    if spec.consensus_of is None:
        return {spec.generated_by}
    return {name for other in spec.consensus_of for name in _authors(plan, other)}


def _teachers(plan: Plan, agents: Iterable[str]) -> dict[str, list[str]]:
    """Each agent's teachers, in declared order; the flows, of which there may be 100,000, are read once."""
    found: dict[str, set[str]] = {name: set() for name in agents}
    for edge in plan.edges:
        if edge.as_ == "target" and edge.target in found:
            through = edge.source in plan.consensus
            found[edge.target].update(sources(edge, plan.consensus) if through else (edge.source,))
    return {name: [one for one in plan.spec.agents if one in own and one != name] for name, own in found.items()}
