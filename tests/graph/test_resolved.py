"""The long form with all defaults filled in says of each flow what the file said."""

from __future__ import annotations

import pytest

from kdmesh.spec import FlowSpec


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("denominator", {"group": "domain"}),
        ("weight", {"start": 0.5, "end": 1.0, "epochs": 3}),
        ("refresh", "10 steps"),
        ("sees", "before"),
        ("mode", "eval"),
        ("gate", {"small_loss": {"of": "b"}}),
        ("signal", {"top_k": {"k": 4}}),
    ],
)
def test_a_field_of_a_flow_is_kept(plan, field, value):
    flow = {"from": "b", "to": "a", "objective": "kl", "stream": "train", field: value}
    labels = {"from": "labels", "to": ["a", "b"], "objective": "ce"}
    made = plan({"data": "digits", "agents": {"a": {}, "b": {}}, "flows": [labels, flow]})
    given, long = FlowSpec.model_validate(flow), made.resolved()
    found = [one for one in long.flows if one.from_ == ["b"] and one.to == ["a"]]
    assert [getattr(one, field) for one in found] == [getattr(given, field)]
    again = plan(long.dump())
    assert again.resolved() == long


def test_the_part_of_an_answer_is_kept(plan):
    fields = {"task": "language_modelling", "data": {"dataset": {"text": {"path": "t.jsonl", "text": "text"}}}}
    fields["text"] = {"reasoning": ["<think>", "</think>"]}
    flows = [{"from": "labels", "to": "a", "objective": "ce", "part": "answer"}]
    made = plan({**fields, "agents": {"a": {"model": {"hf": {"path": "m"}}}}, "flows": flows})
    assert [flow.part for flow in made.resolved().flows] == ["answer"]
