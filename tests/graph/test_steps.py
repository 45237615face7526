"""The step of a lesson: what is drawn for each kind of flow, and in which order."""

from __future__ import annotations

import pytest

from kdmesh.errors import MeshError
from kdmesh.graph.steps import Op


def step(plan, agents, flows, phase="main", **more):
    """The step of the last stage."""
    return plan({"agents": agents, "flows": flows, **more}).stages[-1].phases[phase]


def labels(*names, **more):
    return {"from": "labels", "to": list(names), "objective": "ce", **more}


def kl(source, target, **more):
    return {"from": source, "to": target, "objective": "kl", **more}


def test_a_stored_signal_needs_no_forward_of_its_source(plan):
    assert step(plan, {"t": {}, "s": {}}, [kl("t", "s", refresh="once")]).text() == "f.s | u.s"


def test_an_input_comes_before_the_forward_of_who_reads_it(plan):
    flows = [labels("a", "b"), {"from": "a", "to": "b", "as": "input", "signal": "hidden", "refresh": "step"}]
    assert step(plan, {"a": {}, "b": {}}, flows).text() == "f.a | f.b u.a | u.b"


def test_weights_that_flow_are_no_part_of_a_step(plan):
    flows = [labels("a", "b"), {"from": "a", "to": "b", "as": "weights", "refresh": "1 steps"}]
    made = step(plan, {"a": {}, "b": {}}, flows)
    assert made.text() == "f.a f.b | u.a u.b"


def test_agents_on_shared_weights_are_updated_once(plan):
    agents = {"a": {}, "b": {"weights_of": "a"}}
    assert step(plan, agents, [labels("a"), kl("a", "b")]).text() == "f.a f.b | u.a"


def test_streams_are_told_apart_where_one_agent_reads_several(plan):
    made = step(plan, {"s": {}}, [labels("s"), labels("s", stream="public")])
    assert made.text() == "f.s@public f.s@train | u.s" and made.streams == ["train", "public"]


def test_a_source_in_another_mode_is_another_forward(plan):
    flows = [kl("a", "b"), kl("b", "a", mode="eval")]
    assert step(plan, {"a": {}, "b": {}}, flows).text() == "f.a f.b f.b[eval] | u.a u.b"


def test_the_usual_mode_by_name_is_no_other_forward(plan):
    assert step(plan, {"a": {}, "b": {}}, [kl("a", "b"), kl("b", "a", mode="train")]).text() == "f.a f.b | u.a u.b"


def test_three_peers_one_after_the_other(plan):
    names = ["a", "b", "c"]
    flows = [
        kl(source, target, refresh="step", sees="after" if source < target else "before")
        for target in names
        for source in names
        if source != target
    ]
    made = step(plan, dict.fromkeys(names), flows)
    assert made.text() == "f.a f.b f.c | u.a | f+.a | u.b | f+.b | u.c"
    assert made.after[Op("u", "c")] == [Op("f", "c", "train"), Op("f+", "a", "train"), Op("f+", "b", "train")]


def test_the_order_within_a_wave_is_the_declared_one(plan):
    agents = {"z": {}, "a": {}}
    assert [op.node for op in step(plan, agents, [kl("z", "a"), kl("a", "z")]).ops] == ["z", "a", "z", "a"]


def test_a_consensus_with_a_snapshot_is_formed_in_the_step(plan):
    flows = [{"from": ["a", "b"], "to": "c", "refresh": "epoch", "stale": "snapshot"}, kl("c", ["a", "b"])]
    made = step(plan, {"a": {}, "b": {}}, flows, consensus={"c": "mean"})
    assert made.text() == "f.a f.b f.c | u.a u.b"
    flows[0] = {**flows[0], "stale": "publish"}
    assert step(plan, {"a": {}, "b": {}}, flows, consensus={"c": "mean"}).text() == "f.a f.b | u.a u.b"


def test_a_live_consensus_feeds_another(plan):
    flows = [{"from": ["a", "b"], "to": "c"}, {"from": "c", "to": "d"}, kl("d", ["a", "b"])]
    made = step(plan, {"a": {}, "b": {}}, flows, consensus={"c": "mean", "d": "mean"})
    assert made.text() == "f.a f.b | f.c | f.d | u.a u.b"


def test_only_a_lesson_s_own_flows_are_in_its_step(plan):
    flows = [labels("s", lesson="own"), kl("t", "s", stream="public", lesson="digest")]
    program = [{"of": ["s"], "do": [{"lesson": "own"}, {"lesson": "digest", "steps": 3}]}]
    mesh = {"agents": {"t": {"update": "frozen"}, "s": {}}, "flows": flows, "program": program}
    own, digest = plan(mesh).stages[0].phases.values()
    assert (own.streams, digest.streams) == (["train"], ["public"])
    assert [edge.source for edge in own.edges] == ["labels"] and [edge.source for edge in digest.edges] == ["t"]


def test_a_line_that_trains_a_part_updates_only_that(plan):
    program = [{"of": ["a", "b"], "do": [{"train": ["a"]}, {"train": ["b"]}]}]
    mesh = {"agents": {"a": {}, "b": {}}, "flows": [kl("a", "b"), kl("b", "a")], "program": program}
    assert [made.text() for made in plan(mesh).stages[0].phases.values()] == ["f.a f.b | u.a", "f.a f.b | u.b"]


@pytest.mark.parametrize(
    "flows",
    [
        [kl("b", "a", refresh="step", sees="after"), kl("a", "b", refresh="step", sees="after")],
        [
            kl("b", "a", refresh="step", sees="after"),
            {"from": "a", "to": "b", "as": "input", "refresh": "step", "sees": "after"},
        ],
    ],
    ids=["both see after", "an input is seen after"],
)
def test_a_cycle_within_a_step_is_shown_with_its_path(plan, flows):
    with pytest.raises(MeshError, match=r"cycle within a step: (\S+)( -> \S+)* -> \1") as caught:
        step(plan, {"a": {}, "b": {}}, [labels("a", "b"), *flows])
    assert caught.value.where == "flows" and caught.value.instead
