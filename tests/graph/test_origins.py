"""Messages name places that stand in the file: what a strategy drew, by the setting that it was drawn from."""

from __future__ import annotations

import pytest

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

NET = {"model": "mlp"}
ROUNDS = {"students": ["t", "s"], "objective": "mse"}
OWN = [
    {"from": "labels", "to": ["t", "s", "u"], "objective": "mse"},
    {"from": ["t", "s"], "to": "c", "refresh": "step"},
    {"from": "c", "to": ["t", "s"], "objective": "mse"},
]


def plan(**fields):
    """Values are learned, of which agreement is not defined."""
    data = {"dataset": "diabetes", "transfer": 0.2}
    return make_plan(
        parse({"task": "regression", "data": data, "agents": dict.fromkeys(("t", "s", "u"), NET), **fields}),
        registry(),
    )


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"connect": [{"rounds": {**ROUNDS, "patience": 1}}]}, "connect.0.rounds.patience"),
        ({"connect": [{"rounds": {**ROUNDS, "agreement": 0.5}}]}, "connect.0.rounds.agreement"),
        (
            {
                "connect": [
                    {"ensemble": {"teachers": "t", "student": "u", "objective": "mse"}},
                    {"rounds": {**ROUNDS, "patience": 1}},
                ]
            },
            "connect.1.rounds.patience",
        ),
        (
            {
                "flows": OWN,
                "consensus": {"c": "mean"},
                "program": [{"of": ["t", "s"], "repeat": 2, "until": {"patience": 1}, "do": [{"train": ["t", "s"]}]}],
            },
            "program.0.until.patience",
        ),
        (
            {
                "connect": [
                    {
                        "ensemble": {
                            "teachers": ["t", "u"],
                            "student": "s",
                            "objective": "mse",
                            "consensus": {"rule": "mean", "include_self": False},
                        }
                    }
                ]
            },
            "connect.0.ensemble.consensus",
        ),
    ],
)
def test_a_message_names_what_stands_in_the_file(fields, where):
    with pytest.raises(MeshError) as refused:
        refuse_unrun(plan(**fields), registry())
    assert refused.value.where == where


def test_paths_of_drawn_parts_lead_to_their_strategy():
    made = plan(connect=[{"rounds": {**ROUNDS, "rounds": 2}}])
    assert made.at("program.0.do.1.publish") == "connect.0.rounds"
    assert made.at("program.0.rounds") == "connect.0.rounds.rounds"
    (node,) = made.consensus
    assert made.at(f"consensus.{node}.include_self") == "connect.0.rounds.include_self"
    assert made.at("agents.t.train.epochs") == "agents.t.train.epochs"
