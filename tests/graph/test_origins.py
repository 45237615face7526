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


def debate(**settings):
    told = {"debaters": ["t", "u"], "student": "s", "rule": "vote", **settings}
    net = {"hf": {"config": {"model_type": "llama"}, "tokenizer": {"characters": {}}}}
    agents = {"t": {"model": net, "update": "frozen"}, "u": {"model": net, "update": "frozen"}, "s": {"model": net}}
    fields = {"task": "language_modelling", "data": {"dataset": "sums"}, "agents": agents}
    return make_plan(parse({**fields, "connect": [{"debate": told}]}), registry())


def test_a_field_of_a_drawn_stream_leads_to_the_setting_that_it_was_made_of():
    made = debate(teach="pairs", rule=None, pairs="vote", reference="t", objective="kl")
    assert made.at("streams.debate.rule.vote.pattern") == "connect.0.debate.pairs.vote.pattern"
    assert made.at("streams.debate.keep.1.length") == "connect.0.debate.keep.1.length"
    assert made.at("streams.debate.0.t.sampling.max_new_tokens") == "connect.0.debate.sampling.max_new_tokens"
    assert made.at("streams.debate.1.u.prompts") == "connect.0.debate.stream"
    assert made.at("streams.debate.1.u") == made.at("streams.debate") == "connect.0.debate"
    answered = debate(teach="transcript")
    assert answered.at("streams.debate.answer.rule.vote") == "connect.0.debate.rule.vote"


def test_errors_of_whoever_reads_a_plan_name_what_stands_in_the_file():
    made = debate()
    for where, told in (("streams.debate.rule", "connect.0.debate.rule"), ("data", "data"), ("", "")):
        with pytest.raises(MeshError) as caught, made.naming():
            raise MeshError("what", where=where)
        assert caught.value.where == told
