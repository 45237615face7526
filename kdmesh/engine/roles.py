"""What each agent is in a mesh, read off its flows: teacher, student, peer, assistant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.graph.reach import sources

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan

TAUGHT = ("student", "assistant", "peer")  # roles of agents that are compared with themselves without teachers


def teachers_of(plan: Plan, agent: str) -> list[str]:
    """The agents whose signals reach an agent, also through consensus nodes; itself left out."""
    into = (edge for edge in plan.edges if edge.target == agent and edge.as_ == "target")
    found = {name for edge in into for name in sources(edge, plan.consensus) if name != agent}
    return [name for name in plan.spec.agents if name in found]


def roles(plan: Plan) -> dict[str, str]:
    """What each agent is in this mesh: roles are read off the flows."""
    taught_by = {name: teachers_of(plan, name) for name in plan.spec.agents}
    teaches = {name for teachers in taught_by.values() for name in teachers}
    stage = {name: plan.stage_of(name) for name in plan.spec.agents}
    found: dict[str, str] = {}
    for name, teachers in taught_by.items():
        outside = [other for other in teachers if stage[other] is not stage[name] or stage[name] is None]
        inside = [other for other in teachers if other not in outside]
        if plan.spec.agents[name].ema is not None:
            found[name] = "average"
        elif not teachers:
            found[name] = "teacher" if name in teaches else "student" if _self_taught(plan, name) else "alone"
        elif any(plan.spec.agents[other].ema is None for other in inside):
            found[name] = "student" if outside else "peer"
        else:
            later = any(name in taught_by[o] and stage[o] is not stage[name] for o in taught_by)
            found[name] = "assistant" if later else "student"
    return found


def _self_taught(plan: Plan, name: str) -> bool:
    return any(edge.source == name == edge.target for edge in plan.edges)
