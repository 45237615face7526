"""The proof by sample ids, and what a host in a process of its own is sent."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.engine.launch import blueprint
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.plugins import registry
from kdmesh.spec.read import parse


def mesh(streams: dict[str, Any], placement: Any = "together") -> kdmesh.Mesh:
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    data = kdmesh.data((x, x[:, :4].argmax(1)))
    made = kdmesh.Mesh(
        data=data, splits={"transfer": 0.3}, streams=streams, placement=placement, train={"steps": 3, "batch_size": 8}
    )
    for name in ("a", "b", "c"):
        made.agent(name, {"mlp": {"hidden": [4]}})
    made.flow("labels", ["a", "b"], objective="ce", stream="own")
    return made


BY_CLASS = {"private": True, "shards": {"by": "class", "classes": 1, "of": ["a", "b"]}}


@pytest.mark.parametrize("placement", ["together", "spread"])
@pytest.mark.parametrize(
    ("own", "few"),
    [
        (BY_CLASS, {"size": 0.9}),
        ({"private": True, "size": 0.6, "shards": {"of": ["a", "b"]}}, {"size": 0.6}),
        ({"private": True, "only": [0, 1], "shards": {"of": ["a", "b"]}}, {"only": [1, 2]}),
    ],
)
def test_overlapping_streams_are_found_by_their_samples(own, few, placement):
    made = mesh({"own": own, "few": {"of": "train", **few}}, placement)
    made.flow("labels", "c", objective="ce", stream="few")
    plan = made.plan()  # names alone do not tell
    with pytest.raises(MeshError, match=r"c would see \d+ of the \d+ samples of 'few' that are private") as error:
        examine(plan, {}, made.table)
    assert error.value.where == "flows.1"


def test_two_private_streams_do_not_show_one_another_s_samples():
    made = mesh({"own": {"private": True, "shards": {"of": ["a", "b"]}},
                 "mine": {"private": True, "only": [0, 1], "shards": {"of": ["c"]}}})  # fmt: skip
    made.flow("labels", "c", objective="ce", stream="mine")
    with pytest.raises(MeshError, match="private to other agents") as error:
        examine(made.plan(), {}, made.table)
    assert error.value.where == "flows.0"


def test_streams_without_common_samples_are_fine():
    made = mesh({"own": {"only": [0, 1], **BY_CLASS}, "few": {"of": "train", "without": [0, 1]}})
    made.flow("labels", "c", objective="ce", stream="few")
    assert examine(made.plan(), {}, made.table)


def divided(placement: Any) -> kdmesh.Mesh:
    made = mesh({"own": {"private": True, "shards": {"of": ["a", "b"]}}}, placement)
    made.flow("a", "c", objective="kl", stream="transfer")
    return made


def test_a_process_is_sent_its_own_agents_samples_only():
    made = divided({"left": ["a", "c"], "right": ["b"]})
    plan = made.plan()
    found = examine(plan, {}, made.table)
    source = Source(found.table, streams=found.streams)
    own = found.streams["own"].shards
    for host, theirs, others in (("left", own["a"], own["b"]), ("right", own["b"], own["a"])):
        table, streams = source.of(host, plan).load(plan)
        assert torch.equal(table.x[theirs], found.table.x[theirs]) and table.x[others].isnan().all()
        assert (table.y[others] < 0).all() and torch.equal(streams["train"].rows, found.streams["train"].rows)
        sent = io.BytesIO()
        torch.save(table.x, sent)
        assert all(found.table.x[row].numpy().tobytes() not in sent.getvalue() for row in others[:20].tolist())


def test_no_process_reads_private_samples_of_others_from_a_file():
    """Data that a mesh names are sent as well, each process its part: to read them is to hold all of them."""
    request = Request(
        parse(
            {
                "data": "digits",
                "agents": {name: {"model": {"mlp": {"hidden": [4]}}} for name in "ab"},
                "streams": {"own": {"private": True, "shards": {"of": ["a", "b"]}}},
                "flows": [{"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own"}],
                "placement": "spread",
            }
        ),
        ray_address="auto",
    )
    plan = make_plan(request.spec, registry())
    found = examine(plan)
    source = blueprint(request, plan, found)[1]
    for host, (agent,) in plan.hosts.items():
        sent = source.of(host, plan)
        assert sent.table is not None and not sent.expected
        table, streams = sent.load(plan)
        for owner, rows in streams["own"].shards.items():
            assert bool(table.x[rows].isnan().all()) == (owner != agent)


def test_samples_that_are_not_divided_are_sent_to_who_sees_them():
    made = mesh({"own": {"private": True}}, {"left": ["a", "b"], "right": ["c"]})
    made.flow("a", "c", objective="kl", stream="transfer")
    plan = made.plan()
    found = examine(plan, {}, made.table)
    source, rows = Source(found.table, streams=found.streams), found.streams["own"].rows
    assert source.of("right", plan).load(plan)[0].x[rows].isnan().all()
    assert not source.of("left", plan).load(plan)[0].x[rows].isnan().any()


@pytest.mark.ray
def test_a_given_table_with_private_shards_trains_apart_to_equal_weights():
    runs = [divided(placement).run(backend=backend) for backend, placement in
            (("inline", "together"), ("ray", {"left": ["a", "c"], "right": ["b"]}))]  # fmt: skip
    one, two = ({name: agent.weights_sha256 for name, agent in run.agents.items()} for run in runs)
    assert one == two
