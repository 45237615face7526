from __future__ import annotations

import pytest

from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.report.drawing import words
from kdmesh.report.drawing.groups import MOST, PAIRS
from kdmesh.report.drawing.scene import scene
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import bundled, read_mesh


def drawn(name="", /, parameters=None, **data):
    """The scene of a bundled mesh, or of plain data."""
    spec = read_mesh(name, []) if name else MeshSpec.model_validate(data)
    return scene(make_plan(spec, registry()), parameters)


def by_title(found):
    return {node.title: node for node in found.nodes}


def said(found):
    """Arrows by the titles of their ends."""
    title = {node.id: node.title for node in found.nodes}
    return {(title[arrow.source], title[arrow.target]): arrow for arrow in found.arrows}


def test_a_small_mesh_is_drawn_whole():
    found = drawn("ensemble")
    nodes = by_title(found)
    assert list(nodes) == ["wide", "deep", "conv", "student", "c"]
    assert nodes["conv"].lines == ("teacher", "cnn(width 16)", "labels: ce")
    assert nodes["c"].lines == ("consensus", "mean", "of probs at temperature 4")
    assert said(found)["c", "student"].lines == ("kl(temperature 4) × 0.5", "probs")
    assert said(found)["wide", "c"].lines == ("logits, once",)
    assert [cluster.title for cluster in found.clusters] == ["1. side by side, 3 stages", "2. trains"]
    assert nodes["c"].cluster == "" and nodes["wide"].cluster == nodes["deep"].cluster != nodes["student"].cluster


@pytest.mark.parametrize("name", bundled())
def test_every_flow_of_a_bundled_mesh_is_somewhere(name):
    plan = make_plan(read_mesh(name, []), registry())
    found = scene(plan)
    home = {member: node.id for node in found.nodes for member in node.members}
    assert home.keys() == plan.spec.agents.keys() | plan.consensus.keys() | plan.merging.pools.keys()
    assert len(found.nodes) == len({node.id for node in found.nodes})
    ends = {(arrow.source, arrow.target) for arrow in found.arrows}
    ends |= {(arrow.target, arrow.source) for arrow in found.arrows if arrow.both}
    lines = {node.id: " ".join(node.lines) for node in found.nodes}
    for edge in plan.edges:
        if edge.source == "labels":
            assert f"labels: {words.loss(edge)}" in lines[home[edge.target]]
        else:
            assert (home[edge.source], home[edge.target]) in ends
    assert all((home[flow.source], home[flow.target]) in ends for flow in plan.merging.flows)
    assert {node.cluster for node in found.nodes} - {""} == {cluster.id for cluster in found.clusters}
    assert scene(plan) == found


def test_private_streams_hosts_rounds_and_groups_are_told():
    found = drawn("parties")
    (party,) = (node for node in found.nodes if node.kind == "agent")
    assert party.title == "party[0..5] × 6" and party.private and "private: own" in party.lines
    assert len(party.members) == 6 and found.clusters[0].title == "1. train together, 15 rounds"
    assert "host one" in by_title(drawn("council"))["mlp"].lines


def test_frozen_agents_followers_and_inputs_look_unlike_others():
    found = drawn("mean-teacher")
    assert said(found)["student", "student.ema"].kind == "follows"
    found = drawn(
        agents={"t": {"update": "frozen"}, "s": {}, "again": {"weights_of": "s", "exit": "layers.0"}},
        flows=[{"from": ["t", "again"], "to": "s", "objective": "kl"}, {"from": "t", "to": "again", "objective": "kl"}],
    )
    nodes = by_title(found)
    assert nodes["t"].frozen and nodes["t"].cluster == "" and nodes["t"].lines[0] == "frozen teacher"
    assert "exit layers.0" in nodes["again"].lines and ("s", "again") in said(found)


def test_two_ways_are_one_arrow_with_two_heads():
    arrows = drawn("deep-mutual").arrows
    assert len(arrows) == 3 and all(arrow.both for arrow in arrows)
    assert not any(arrow.both for arrow in drawn("ring").arrows)


@pytest.mark.parametrize(
    ("settings", "how", "flows"),
    [
        ({"graph": "ring"}, "in a ring: each from the one before", 600),
        ({"graph": "ring", "order": "sequential"}, "in a ring: each from the one before", 600),
        ({}, "all to all: each from the 299 others", 90_000),
    ],
)
def test_three_hundred_peers_are_one_node(settings, how, flows):
    found = drawn(agents={"p": {"count": 300}}, connect=[{"mutual": {"peers": ["p[*]"], **settings}}])
    (node,), (arrow,) = found.nodes, found.arrows
    assert node.title == "p[0..299] × 300" and arrow.source == arrow.target == node.id
    assert arrow.lines[-1] == how and f"{flows:,} flows" in found.summary
    if "order" in settings:
        assert "299 of 300 see after" in arrow.lines[1]


def test_three_hundred_of_an_ensemble_are_four_nodes():
    found = drawn(
        agents={"a": {"count": 150}, "b": {"count": 149, "labels": [0]}, "s": {}},
        connect=[{"ensemble": {"teachers": ["a[*]", "b[*]"], "student": "s", "consensus": "uhc"}}],
    )
    assert [node.title for node in found.nodes] == ["a[0..149] × 150", "b[0..148] × 149", "s", "c"]
    assert said(found)["a[0..149] × 150", "c"].lines[-1] == "from each"


def test_a_chain_of_three_hundred_is_a_row():
    agents = {f"a{number}": {} for number in range(300)}
    found = drawn(agents=agents, connect=[{"chain": {"agents": list(agents)}}])
    middle = next(node for node in found.nodes if len(node.members) > 1)
    assert middle.title == "a2..a297 × 296" and len(found.nodes) == 5
    assert said(found)[middle.title, middle.title].lines[-1] == "in a row: each to the next"
    assert "3 to 298. one after another, 296 stages" in [cluster.title for cluster in found.clusters]


def test_unlike_agents_are_drawn_as_one_where_they_are_many():
    agents = {f"a{number}": {"model": {"mlp": {"hidden": [number + 1]}}} for number in range(300)}
    found = drawn(agents={**agents, "s": {}}, connect=[{"ensemble": {"teachers": list(agents), "student": "s"}}])
    assert len(found.nodes) <= MOST
    many = found.nodes[0]
    assert len(many.members) == 300 and "300 kinds of model" in many.lines


def test_many_pairs_of_unlike_peers_are_drawn_as_one():
    for size, nodes in ((7, 7), (10, 1)):
        peers = {f"p{number}": {"model": {"mlp": {"hidden": [number + 1]}}} for number in range(size)}
        found = drawn(agents=peers, connect=[{"mutual": {"peers": list(peers)}}])
        assert len(found.nodes) == nodes and len(found.arrows) <= PAIRS


def test_teams_and_pairs_say_how_they_connect():
    agents = {f"{side}{number}": {} for side in "ts" for number in range(20)}
    flows = [{"from": f"t{number}", "to": f"s{number}", "objective": "kl"} for number in range(20)]
    found = drawn(agents=agents, flows=flows)
    assert [node.title for node in found.nodes] == ["t0..t19 × 20", "s0..s19 × 20"]
    assert found.arrows[0].lines[-1] == "one to one"
    peers = {f"p{number}": {} for number in range(20)}
    teams = [{"mutual": {"peers": list(peers)[at : at + 5]}} for at in range(0, 20, 5)]
    found = drawn(agents=peers, connect=teams)
    assert [cluster.title for cluster in found.clusters] == ["1. side by side, 4 stages of 5"]
    assert found.arrows[0].lines[-1] == "each from 4 others"


def test_sizes_of_a_run_are_told():
    node = by_title(drawn("ensemble", {"student": 1210}))["student"]
    assert "1,210 parameters" in node.lines


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a"], "a"),
        (["p[0]", "p[1]", "p[2]"], "p[0..2]"),
        (["p[0]", "p[1]", "p[3]", "p[4]", "p[5]"], "p[0], p[1], p[3..5]"),
        (["t1", "t2", "t3", "x"], "t1..t3, x"),
        (["a", "b", "c", "d", "e"], "a, b, c and 2 more"),
    ],
)
def test_titles(names, short):
    assert words.title(names) == short
