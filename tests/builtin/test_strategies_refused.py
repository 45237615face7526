"""Settings that make no sense are refused where they stand, with what to write instead."""

from __future__ import annotations

import pytest

from kdmesh.builtin.strategies.offers import STRATEGIES
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

AGENTS = {name: {} for name in "abcd"} | {"ice": {"update": "frozen"}, "view": {"weights_of": "a"}}


def refusal(connect, **more):
    with pytest.raises(MeshError) as caught:
        make_plan(parse({"agents": AGENTS, "connect": load(connect), **more}), registry())
    return caught.value


@pytest.mark.parametrize(
    ("strategy", "field", "what"),
    [
        ("ensemble: {teachers: [a, x], student: b}", "teachers", "unknown agent 'x'"),
        ("ensemble: {teachers: [a, a], student: b}", "teachers", "named twice"),
        ("ensemble: {teachers: [a, b], student: b}", "teachers", "both teacher and student"),
        ("ensemble: {teachers: [a, b], student: ice}", "student", "is frozen"),
        ("ensemble: {teachers: a, student: b, labels: 1}", "labels", "leave no weight"),
        ("ensemble: {teachers: a, student: b, labels: {start: 2, end: 0, epochs: 3}}", "labels", "leave no weight"),
        ("ensemble: {teachers: a, student: b, weight: 0}", "weight", "found 0"),
        ("ensemble: {teachers: a, student: b, refresh: daily}", "refresh", "daily"),
        ("ensemble: {teachers: [a, b], student: c, objective: hint, tap: layers.0}", "tap", "cannot combine layers"),
        ("chain: {agents: [a]}", "agents", "at least two links"),
        ("chain: {agents: [a, [b, a]]}", "agents", "named twice"),
        ("chain: {agents: [a, b, []]}", "agents.2", "found []"),
        ("chain: {agents: [a, ice]}", "agents.1", "is frozen"),
        ("chain: {agents: [view], generations: 2}", "generations", "shares the weights of 'a'"),
        ("mutual: {peers: a}", "peers", "at least two peers"),
        ("mutual: {peers: [a, b], graph: ring}", "graph", "ring of two"),
        ("mutual: {peers: [a, b], graph: [[a, c]]}", "graph.0", "'c' is not one of the peers"),
        ("mutual: {peers: [a, b], graph: [[a, b], [a, b]]}", "graph.1", "stands twice"),
        ("mutual: {peers: [a, b], graph: [[a, a]]}", "graph.0", "teaches itself"),
        ("mutual: {peers: [a, b, c], graph: [[a, b]]}", "graph", "'c' is in no pair"),
        ("mutual: {peers: [a, b, c], graph: ring, consensus: mean}", "graph", "combines all peers"),
        ("mutual: {peers: [a, b], order: sequential, refresh: epoch}", "refresh", "with refresh: step"),
        ("mutual: {peers: [a, b], order: sequential, consensus: mean}", "order", "between pairs"),
        ("mutual: {peers: [a, b], stale: snapshot}", "stale", "`stale` has no effect"),
        ("mutual: {peers: [a, b], refresh: once}", "refresh", "once"),
        ("self: {student: a, teacher: epoch, decay: 0.9}", "decay", "has no effect with the teacher 'epoch'"),
        ("self: {student: a, stale: recorded}", "stale", "has no effect with the teacher 'ema'"),
        ("self: {student: a, teacher: batch, labels: null}", "teacher", "recorded only where its labels are learned"),
        ("self: {student: a, teacher: batch, stream: validation}", "teacher", "recorded only"),
        ("rounds: {students: [a]}", "students", "no source to learn from"),
        ("rounds: {students: [a, b], labels: 0}", "labels", "neither teachers nor labels"),
        ("rounds: {teachers: [a], students: [a, b]}", "teachers", "both teacher and student"),
        ("rounds: {students: [a, b], rounds: 0}", "rounds", "found 0"),
    ],
)
def test_refused_where_it_stands(strategy, field, what):
    error = refusal(f"- {strategy}")
    assert error.where == f"connect.0.{strategy.partition(':')[0]}.{field}"
    assert what in error.what
    assert error.instead or "twice" in what


@pytest.mark.parametrize("students", ["", ", student: b, students: c"])
@pytest.mark.parametrize("strategy", ["ensemble: {teachers: a%s}", "self: {teacher: ema%s}", "rounds: {teachers: a%s}"])
def test_students_are_named_once(strategy, students):
    error = refusal("- " + strategy % students)
    assert error.where == f"connect.0.{strategy.partition(':')[0]}"
    assert error.instead == "student: NAME, or students: [NAMES]"


def test_followers_are_taught_nothing():
    agents = {"a": {}, "b": {}, "e": {"update": {"ema": {"of": "a"}}}}
    with pytest.raises(MeshError, match="follows the weights of another"):
        make_plan(parse({"agents": agents, "connect": [{"chain": {"agents": ["b", "e"]}}]}), registry())


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (
            "chain: {agents: [a, b]}",
            "mutual: {peers: [b, c]}",
            "weight 1.0 here, but with weight 0.5 in connect.0.chain",
        ),
        (
            "mutual: {peers: [b, c]}",
            "rounds: {students: [b, c]}",
            "in lesson 'own' here, but with weight 1.0 in connect.0",
        ),
    ],
)
def test_other_labels_for_the_same_agent_are_refused(first, second, what):
    error = refusal(f"- {first}\n- {second}")
    assert "labels reach 'b'" in error.what and what in error.what
    assert error.where.startswith("connect.1.")
    assert "labels: null" in error.instead


def test_labels_of_a_written_flow_count_too():
    written = [{"from": "labels", "to": ["b"], "objective": {"ce": {"label_smoothing": 0.1}}, "weight": 0.5}]
    error = refusal("- chain: {agents: [a, b]}", flows=written)
    assert (
        error.what
        == "labels reach 'b' with weight 0.5 here, but with weight 0.5 by {'ce': {'label_smoothing': 0.1}} in flows.0"
    )


def test_the_same_labels_are_drawn_once():
    connect = load("[{chain: {agents: [a, b]}}, {ensemble: {teachers: [a, c], student: b}}]")
    planned = make_plan(parse({"agents": {name: {} for name in "abc"}, "connect": connect}), registry())
    assert sum(edge.source == "labels" and edge.target == "b" for edge in planned.edges) == 1


def test_every_setting_is_described():
    for offer in STRATEGIES:
        assert offer.summary and offer.paper
        for name, field in offer.config.model_fields.items():
            assert field.description, f"{offer.name}.{name}"
