"""The plan says how long each agent trains by its stage's program, not by its settings alone."""

from __future__ import annotations

import pytest

from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.report.plan_data import plan_json
from kdmesh.spec.read import parse, read_mesh

LABELS = {"from": "labels", "to": "s", "objective": "ce"}


def budgets(spec):
    agents = plan_json(make_plan(spec, registry()), registry())["agents"]
    return {name: agent["budget"] for name, agent in agents.items()}


def test_the_council_s_students_train_in_rounds():
    found = budgets(read_mesh("council", []))
    assert found["small"] == found["medium"] == found["conv"] == "8 x (1 + 2) epochs"
    assert found["mlp"] == found["cnn"] == "10 epochs"


@pytest.mark.parametrize(
    ("program", "train", "said"),
    [
        ([], {"epochs": 1}, "1 epoch"),
        ([], {"steps": 1500}, "1,500 steps"),
        ([{"train": ["s"], "epochs": 1}], {}, "3 x 1 epochs"),
        ([{"train": ["s"], "epochs": 1}, {"train": ["s"], "steps": 5}], {}, "3 x (1 epoch + 5 steps)"),
    ],
)
def test_budgets_in_words(program, train, said):
    agents = {"s": {"model": "mlp"}, "still": {"model": "mlp", "update": "frozen"}}
    flows = [LABELS, {"from": "still", "to": "s", "objective": "kl"}]
    mesh = {"data": "digits", "agents": agents, "flows": flows, "train": train}
    if program:
        mesh["program"] = [{"of": ["s"], "repeat": 3, "do": program}]
    assert budgets(parse(mesh)) == {"s": said, "still": None}
