"""Placement: what must share a host, what may not leave one."""

from __future__ import annotations

import pytest

from kdmesh.errors import MeshError


def mesh(agents, flows, placement, **more):
    return {"agents": agents, "flows": flows, "placement": placement, **more}


def kl(source, target, **more):
    return {"from": source, "to": target, "objective": "kl", **more}


PEERS = [kl("a", "b"), kl("b", "a")]


def test_together_is_one_host_and_spread_one_for_each(plan):
    agents = {"a": {}, "b": {}}
    assert plan(mesh(agents, PEERS, "together")).hosts == {"host0": ["a", "b"]}
    spread = plan(mesh(agents, PEERS, "spread"))
    assert spread.hosts == {"host0": ["a"], "host1": ["b"]} and spread.host_of == {"a": "host0", "b": "host1"}


@pytest.mark.parametrize(
    ("agents", "flows", "more", "hosts"),
    [
        ({"a": {}, "b": {"weights_of": "a"}, "c": {}}, [kl("c", "b")], {}, [["a", "b"], ["c"]]),
        ({"a": {}, "b": {"update": {"ema": {"of": "a"}}}, "c": {}}, [kl("b", "a")], {}, [["a", "b"], ["c"]]),
        ({"a": {}, "b": {}, "c": {}}, [*PEERS, kl("b", "c", detach=False)], {}, [["a"], ["b", "c"]]),
        (
            {"a": {}, "b": {}, "c": {}},
            [kl("a", "b", refresh="step", stale="recorded"), kl("c", "a", refresh="epoch", stale="recorded")],
            {},
            [["a", "b"], ["c"]],
        ),
        (
            {"a": {}, "b": {}, "c": {}},
            [{"from": "a", "to": "m"}, kl("m", ["b", "c"])],
            {"consensus": {"m": "noisy"}},
            [["a"], ["b", "c"]],
        ),
        (
            {"a": {}, "b": {}, "c": {}},
            [{"from": ["a", "b"], "to": "m", "detach": False}, kl("m", "b", detach=False), kl("a", "c")],
            {"consensus": {"m": "mean"}},
            [["a", "b"], ["c"]],
        ),
    ],
    ids=["shared weights", "a follower", "gradients", "recorded values", "an owned consensus", "gradients through one"],
)
def test_spread_keeps_together_what_must_be_and_no_more(plan, agents, flows, more, hosts):
    owners = [name for name, agent in agents.items() if not agent]
    flows = [{"from": "labels", "to": owners, "objective": "ce"}, *flows]
    assert list(plan(mesh(agents, flows, "spread", **more)).hosts.values()) == hosts


@pytest.mark.parametrize(
    ("agents", "flows", "why"),
    [
        (
            {"a": {}, "b": {"weights_of": "a"}},
            [kl("a", "b")],
            "a, b must share a host, since they share the weights of a",
        ),
        ({"a": {}, "b": {}}, [*PEERS, kl("a", "b", detach=False)], "a, b must share a host, since gradients pass"),
    ],
    ids=["shared weights", "gradients"],
)
def test_a_contrary_placement_is_refused(plan, agents, flows, why):
    with pytest.raises(MeshError) as caught:
        plan(mesh(agents, flows, {"left": ["a"], "right": ["b"]}))
    assert caught.value.what.startswith(why) and "left, right" in caught.value.what
    assert (caught.value.where, caught.value.instead) == ("placement", "put them on one host")


@pytest.mark.parametrize(
    ("placement", "what", "where"),
    [
        ({"left": ["a", "x"], "right": ["b"]}, "unknown agent 'x'", "placement.left"),
        ({"left": ["a", "b"], "right": ["b"]}, "agent 'b' is placed on 'left' and on 'right'", "placement.right"),
        ({"left": ["a"]}, "no host is named for b", "placement"),
    ],
)
def test_a_placement_names_each_agent_once(plan, placement, what, where):
    with pytest.raises(MeshError) as caught:
        plan(mesh({"a": {}, "b": {}}, PEERS, placement))
    assert (caught.value.what, caught.value.where) == (what, where)


PRIVATE = {"ward": {"of": "train", "private": True}, "part": {"of": "ward", "size": 10}}
APART = {"left": ["a"], "right": ["b"]}


@pytest.mark.parametrize("stream", PRIVATE)
@pytest.mark.parametrize(
    ("flows", "consensus"),
    [
        ([kl("a", "b")], {}),
        ([{"from": "a", "to": "m"}, kl("m", "b")], {"m": "mean"}),
        ([{"from": "a", "to": "m"}, {"from": "m", "to": "n"}, kl("n", "b")], {"m": "mean", "n": "mean"}),
    ],
    ids=["straight", "through a consensus", "through two"],
)
def test_signals_of_a_private_stream_stay_on_their_host(plan, flows, consensus, stream):
    flows = [{**flow, "stream": stream} if flow["from"] == "a" else flow for flow in flows]
    made = mesh({"a": {}, "b": {}}, flows, APART, consensus=consensus, streams=PRIVATE)
    with pytest.raises(MeshError, match=f"stream '{stream}' is private, but a -> b would carry") as caught:
        plan(made)
    assert caught.value.where == "flows.0" and caught.value.instead
    assert plan({**made, "placement": "together"}).hosts == {"host0": ["a", "b"]}


def test_a_private_shard_is_its_agent_s_own_even_on_one_host(plan):
    streams = {"own": {"private": True, "shards": {"by": "iid", "of": ["a", "b"]}}}
    labels = {"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own"}
    assert plan(mesh({"a": {}, "b": {}}, [labels], "together", streams=streams)).stages
    with pytest.raises(MeshError, match="is private"):
        plan(mesh({"a": {}, "b": {}}, [labels, kl("a", "b", stream="own")], "together", streams=streams))


def test_a_consensus_is_judged_beside_its_first_reader(plan):
    flows = [{"from": ["a", "b"], "to": "m"}, kl("m", "c")]
    made = plan(mesh({"a": {}, "b": {}, "c": {}}, flows, "spread", consensus={"m": "mean"}))
    assert made.evaluator("m") == made.host_of["c"]
