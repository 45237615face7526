"""Objectives that need more of the batch than their target: labels and sample ids, aligned with the own signal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdmesh.contracts.objective import Objective
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.engine.trial import STEPS
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.offers import ObjectiveOffer
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

SEEN: list[tuple[Tensor, Tensor]] = []


class Labelled(Objective):
    """Cross-entropy by labels that come as a need; the target is ignored."""

    def forward(self, student, target, *, form="logits", weights=None, labels=None, ids=None):
        SEEN.append((labels, ids))
        return torch.nn.functional.cross_entropy(student, labels) + 0.0 * target.sum()


@pytest.fixture(autouse=True)
def offered(monkeypatch):
    offer = ObjectiveOffer("labelled", f"{__name__}:Labelled", forms=("logits",), needs=("labels", "ids"))
    monkeypatch.setitem(registry()._offers["objectives"], "labelled", offer)
    SEEN.clear()


def mesh(stream: str) -> dict:
    return {
        "data": {"dataset": "digits", "transfer": 0.2},
        "agents": {"t": {"model": "mlp"}, "s": {"model": "mlp"}},
        "flows": [{"from": "t", "to": "s", "objective": "labelled", "stream": stream}],
        "train": {"epochs": 1, "optimizer": {"adamw": {"lr": 0.01}}},
    }


def test_an_objective_is_given_the_labels_and_ids_of_its_batch():
    spec = parse(mesh("train"))
    summary, _, _ = run_once(Request(spec, "inline"))
    table, streams = Source().load(make_plan(spec, registry()))
    assert all(torch.equal(table.y[ids], labels) for labels, ids in SEEN)
    ids = torch.cat([ids for _, ids in SEEN[STEPS:]])  # after those of the trial before the run
    assert torch.equal(ids.sort().values, streams["train"].rows)
    assert summary["agents"]["s"]["metrics"]["test"]["accuracy"] > 0.5


def test_labels_are_not_given_where_a_stream_hides_them():
    with pytest.raises(MeshError, match=r"objective 'labelled' needs labels, and stream 'transfer' has none") as caught:
        make_plan(parse(mesh("transfer")), registry())
    assert caught.value.where == "flows.0.objective"
