"""Losses averaged by groups: the factors, and flows on which they mean nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.hosts.grouped import even
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

MLP = {"model": {"mlp": {"hidden": [8]}}}
FLOW: dict[str, Any] = {"from": "c", "to": "s", "objective": "kl", "denominator": {"group": "kind"}}


def refuse(flow: dict[str, Any], **consensus: Any) -> MeshError:
    agents = dict.fromkeys("abs", MLP)
    fields = {
        "data": "digits",
        "agents": agents,
        "consensus": {"c": {"rule": "mean", **consensus}},
        "flows": [
            {"from": "labels", "to": ["a", "b"], "objective": "ce"},
            {"from": ["a", "b"], "to": "c"},
            {**FLOW, **flow},
        ],
    }
    with pytest.raises(MeshError) as caught:
        refuse_unrun(make_plan(parse(fields), registry()), registry())
    assert caught.value.instead
    return caught.value


def test_where_rows_are_weighed_already_it_is_refused() -> None:
    gate = refuse({"gate": "confident"})
    assert gate.where == "flows.2.denominator" and "says which rows count" in gate.what
    loss = refuse({}, space="loss")
    assert loss.where == "flows.2.denominator" and "weighs the losses of its sources itself" in loss.what


def test_each_group_counts_the_same_whatever_its_size() -> None:
    numbers, losses = torch.tensor([0, 2, 2, 2, -1, 0]), torch.arange(6.0)
    groups = [losses[numbers == number].mean() for number in (-1, 0, 2)]
    torch.testing.assert_close((even(numbers, None) * losses).sum() / 6, sum(groups) / 3)
    weights = torch.tensor([1.0, 0, 0.5, 0, 0, 0])  # two groups are left, of two rows and one
    counted = (losses[0] * 1.0 + losses[2] * 0.5) / 2
    torch.testing.assert_close((even(numbers, weights) * losses).sum() / 6, counted)
    assert not even(numbers, torch.zeros(6)).any() and len(even(numbers[:0], None)) == 0
