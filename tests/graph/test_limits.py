"""Meshes of absurd size are refused before anything is made of them, whatever draws them; large ones are planned."""

from __future__ import annotations

import pytest

from kdmesh.errors import MeshError
from kdmesh.graph import limits
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

MLP = {"model": {"mlp": {"hidden": [4]}}}
NAMES = [f"a{number}" for number in range(1000)]


def plan(**fields):
    return make_plan(parse({"data": "digits", **fields}), registry())


def party(count):
    return {"p": {**MLP, "count": count}}


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"agents": party(100_000)}, "agents.p.count", "100,000 agents"),
        ({"agents": party(10**9)}, "agents.p.count", "1,000,000,000 agents"),
        ({"agents": {**party(3000), "q": {**MLP, "count": 3000}}}, "agents.q.count", "6,000 agents"),
        ({"agents": dict.fromkeys(map(str, range(4001)), MLP)}, "agents", "4,001 agents"),
        ({"agents": party(2), "consensus": dict.fromkeys(map(str, range(5000)), "mean")}, "consensus", "5,000 "),
        ({"agents": party(4000), "connect": [{"mutual": {"peers": "p[*]"}}]}, "connect.0.mutual", "edges"),
        (
            {"agents": party(4000), "connect": [{"mutual": {"peers": "p[*]", "order": "sequential"}}]},
            "connect.0.mutual",
            "edges",
        ),
        (
            {"agents": dict.fromkeys(NAMES, MLP), "connect": [{"chain": {"agents": NAMES, "dense": True}}]},
            "connect.0.chain",
            "edges",
        ),
        (
            {
                "agents": dict.fromkeys(NAMES, MLP),
                "flows": [{"from": NAMES, "to": NAMES, "objective": "kl"}],
            },
            "flows.0",
            "1,000,000 edges",
        ),
        (
            {
                "agents": party(2),
                "flows": [{"from": "p[0]", "to": "p[1]", "objective": "hint", "tap": ["layers.0"] * 200_000}],
            },
            "flows.0",
            "200,000 edges",
        ),
    ],
)  # fmt: skip
def test_a_mesh_that_is_too_large_is_refused_with_its_size_and_the_most(fields, where, what):
    with pytest.raises(MeshError) as caught:
        plan(**fields)
    error = caught.value
    assert error.where == where and what in error.what and "a mesh has at most " in error.what and error.instead


def test_all_that_a_mesh_may_have_is_planned():
    count = limits.NODES
    found = plan(agents=party(count), connect=[{"mutual": {"peers": "p[*]", "graph": "ring"}}])
    assert len(found.spec.agents) == count and len(found.edges) == 2 * count and len(found.stages) == 1
