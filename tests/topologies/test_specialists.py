"""The bundled `specialists`: a student learns from teachers of six classes each what none of them knows."""

from __future__ import annotations

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse, read_mesh


def test_the_student_knows_more_than_any_teacher():
    mesh = read_mesh("specialists").dump()
    mesh["train"]["epochs"], mesh["agents"]["student"]["train"]["epochs"] = 5, 10
    spec = parse(mesh)
    summary, _, _ = run_once(Request(spec, "inline"))
    score = {name: facts["metrics"]["test"]["accuracy"] for name, facts in summary["agents"].items()}
    teachers = [name for name, agent in spec.agents.items() if agent.labels is not None]
    assert len(teachers) == 3
    assert min(score[name] for name in teachers) > 0.5
    assert max(score[name] for name in teachers) < 0.65  # six classes of ten
    assert score["student"] > max(score[name] for name in teachers) + 0.15
    assert summary["consensus"]["c"]["metrics"]["test"]["accuracy"] > 0.8
