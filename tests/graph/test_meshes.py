"""Published structures, each planned as `meshes.yaml` says."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdmesh.errors import MeshError
from kdmesh.graph.canvas import Canvas
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.report.plan_text import plan_json, plan_text
from kdmesh.spec import AgentSpec, ProgramItem, StreamSpec
from kdmesh.spec.read import parse

MESHES = [mesh for mesh in yaml.safe_load_all((Path(__file__).parent / "meshes.yaml").read_text("utf-8")) if mesh]
PLANNED = [mesh for mesh in MESHES if "stages" in mesh["expect"]]


def named(meshes: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize(
        ("mesh", "expect"),
        [({key: mesh[key] for key in mesh if key != "expect"}, mesh["expect"]) for mesh in meshes],
        ids=[mesh["name"] for mesh in meshes],
    )


def stages_of(made) -> list[list[list[str]]]:
    return [[stage.weights for stage in same] for _, same in groupby(made.stages, key=lambda stage: stage.generation)]


@named(PLANNED)
def test_stages_and_steps_are_as_expected(plan, mesh, expect):
    made = plan(mesh)
    assert stages_of(made) == expect["stages"]
    step = expect["step"] if isinstance(expect["step"], dict) else {"main": expect["step"]}
    assert {key: phase.text() for key, phase in made.stages[-1].phases.items()} == step


@named([mesh for mesh in MESHES if "refused" in mesh["expect"]])
def test_a_bad_mesh_is_refused(plan, mesh, expect):
    with pytest.raises(MeshError) as caught:
        plan(mesh)
    assert caught.value.what.startswith(expect["refused"]) and caught.value.where and caught.value.instead


@named(PLANNED)
def test_the_resolved_long_form_plans_the_same(plan, offered, mesh, expect):
    made = plan(mesh)
    again = make_plan(made.resolved(), offered)
    assert [(str(e), e.refresh, e.stale, e.stream, e.form, e.signal) for e in again.edges] == [
        (str(e), e.refresh, e.stale, e.stream, e.form, e.signal) for e in made.edges
    ]
    assert again.consensus.keys() == made.consensus.keys() and stages_of(again) == expect["stages"]
    assert again.resolved().dump() == made.resolved().dump()


@named(PLANNED)
def test_the_long_form_reads_back_to_itself(plan, mesh, expect):
    spec = plan(mesh).spec
    assert plan(spec.dump()).spec.dump() == spec.dump()


@named(PLANNED)
def test_the_plan_tells_its_stages_steps_and_choices(plan, offered, mesh, expect):
    made = plan(mesh)
    text, data = plan_text(made, offered), plan_json(made, offered)
    assert max(map(len, text.splitlines())) <= 80
    assert len(data["flows"]) == len(made.edges)
    for stage, told in zip(made.stages, data["stages"], strict=True):
        for key, phase in stage.phases.items():
            assert told["lessons"][key]["step"] == phase.text()
            assert " ".join(phase.text().split()) in " ".join(text.split())
    assert [choice["flow"] for choice in data["choices"]["flows"]] == [edge.id for edge in made.edges]


def test_the_choices_that_papers_leave_unsaid_are_filled_in(plan):
    flows = [
        {"from": "labels", "to": ["t", "s"], "objective": "ce"},
        {"from": "t", "to": "c", "refresh": "step", "detach": False},
        {"from": "c", "to": "s", "objective": {"kl": {"temperature": 4, "t2_scale": False}}, "detach": False},
        {"from": "e", "to": "s", "objective": {"mse": {"per_element": True}}},
        {"from": "t", "to": "s", "objective": "hint", "tap": "mid", "refresh": "step"},
    ]
    agents = {"t": {}, "s": {}, "e": {"update": {"ema": {"of": "s", "mode": "train"}}}}
    data = plan_json(plan({"agents": agents, "consensus": {"c": "mean"}, "flows": flows}))
    keys = ("from", "temperature", "t2_scale", "reduction", "space", "include_self", "detach", "mode")
    assert [tuple(choice[key] for key in keys) for choice in data["choices"]["flows"]] == [
        ("labels", 1.0, True, "batchmean", None, None, True, None),
        ("labels", 1.0, True, "batchmean", None, None, True, None),
        ("t", None, None, None, None, None, False, "train"),
        ("c", 4.0, False, "batchmean", "probs", True, False, None),
        ("e", None, None, "mean over elements", None, None, True, "train"),
        ("t", None, None, "mean over elements", None, None, True, "train"),
    ]
    assert data["choices"]["consensus"] == {"c": {"space": "probs", "temperature": 4.0, "include_self": True}}


def test_the_reduction_of_an_objective_of_ones_own_is_what_its_offer_says(plan, monkeypatch):
    mesh = {"agents": {"t": {}, "s": {}}, "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}]}
    made, offer = plan(mesh), registry().find("objectives", "kl")
    for said, expected in (("", None), ("median over samples", "median over samples")):
        monkeypatch.setitem(registry()._offers["objectives"], "kl", replace(offer, reduction=said))
        choices = plan_json(made)["choices"]["flows"]
        assert [one["reduction"] for one in choices if one["objective"] == "kl"] == [expected]


def test_a_large_mesh_is_counted_not_listed(plan):
    text = plan_text(plan({"agents": {"party": {"count": 400}, "s": {}}, "connect": [MANY]}))
    assert "401 agents, 802 flows, 1 consensus node, 401 stages, 1 host" in text
    assert "400 stages" in text and text.count("\n") < 60 and max(map(len, text.splitlines())) <= 80


MANY = {"ensemble": {"teachers": "party[*]", "student": "s"}}


def test_a_canvas_takes_what_a_file_would_say():
    canvas = Canvas(parse({"agents": {"a": {}}}))
    assert canvas.agent("b", {"update": "frozen"}) == "b" and canvas.agents["b"] == AgentSpec(update="frozen")
    assert canvas.stream("few", {"of": "train", "size": 0.1}) == "few"
    assert canvas.streams["few"] == StreamSpec(of="train", size=0.1)
    canvas.program({"of": "a", "lesson": "main", "epochs": 2})
    assert isinstance(canvas.programs[-1], ProgramItem)
    with pytest.raises(ValueError, match="sise"):
        canvas.stream("less", {"of": "train", "sise": 0.1})
