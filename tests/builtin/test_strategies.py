"""What each strategy draws, flow by flow, and the stages that follow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.graph.draw import draw
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

KL4 = {"kl": {"temperature": 4}}
RAMP = {"start": 0.9, "end": 0.2, "epochs": 5}


def plan(connect, agents="t1 t2 t3 s", **more):
    """Plan strategies, written in YAML, over agents without models (names, or all of their part of the file)."""
    agents = {name: {} for name in agents.split()} if isinstance(agents, str) else agents
    return make_plan(parse({"agents": agents, "connect": load(connect), **more}), registry())


def flows(planned):
    """The drawn flows without their one-item lists: implied labels (no stream) left out."""
    dumped = planned.spec.dump()["flows"]
    short = [{k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in flow.items()} for flow in dumped]
    return [flow for flow in short if flow["from"] != "labels" or "stream" in flow]


def labels(to, stream="train", **more):
    return {"from": "labels", "to": to, "stream": stream, "objective": "ce", **more}


def taught(source, to, objective=KL4, **more):
    return {"from": source, "to": to, "objective": objective, **more}


def stages(planned):
    found: list[list[list[str]]] = []
    for stage in planned.stages:
        found += [[] for _ in range(stage.generation + 1 - len(found))]
        found[stage.generation].append(stage.weights)
    return found


def step(planned):
    return [phase.text() for phase in planned.stages[-1].phases.values()]


# -- ensemble ----------------------------------------------------------------------------------------------------------


def test_ensemble_of_three():
    planned = plan("[ensemble: {teachers: [t1, t2, t3], student: s}]")
    assert flows(planned) == [
        labels("s", weight=0.5),
        {"from": ["t1", "t2", "t3"], "to": "c", "stream": "train"},
        taught("c", "s", weight=0.5),
    ]
    assert planned.spec.dump()["consensus"] == {"c": {"rule": "mean"}}
    assert (planned.consensus["c"].space, planned.consensus["c"].temperature) == ("probs", 4)
    assert stages(planned) == [[["t1"], ["t2"], ["t3"]], [["s"]]]


def test_one_teacher_needs_no_consensus():
    planned = plan("[ensemble: {teachers: t1, students: [s, t2], labels: 0.9, stream: u, labels_stream: l}]", "t1 t2 s")
    assert flows(planned) == [
        labels(["s", "t2"], "l", weight=0.9),
        taught("t1", ["s", "t2"], stream="u", weight=0.1),
    ]
    assert planned.spec.consensus == {}
    assert stages(planned) == [[["t1"]], [["t2"], ["s"]]]


def test_ensemble_without_labels_takes_the_whole_weight():
    assert flows(plan("[ensemble: {teachers: t1, student: s, labels: null}]", "t1 s")) == [
        taught("t1", "s", stream="train")
    ]


def test_ensemble_weight_follows_a_ramp_of_the_labels():
    drawn = flows(plan(f"[ensemble: {{teachers: t1, student: s, labels: {RAMP}}}]", "t1 s"))
    assert [flow["weight"] for flow in drawn] == [RAMP, {"start": 0.1, "end": 0.8, "epochs": 5}]


def test_ensemble_rule_refresh_and_tap():
    rule = "{rule: trimmed_mean, trim: 0.2, space: logits}"
    planned = plan(f"[ensemble: {{teachers: [t1, t2, t3], student: s, consensus: {rule}, refresh: epoch}}]")
    assert planned.spec.dump()["consensus"] == {"c": {"rule": {"trimmed_mean": {"trim": 0.2}}, "space": "logits"}}
    assert flows(planned)[1] == {"from": ["t1", "t2", "t3"], "to": "c", "stream": "train", "refresh": "epoch"}
    assert stages(planned) == [[["s", "t1", "t2", "t3"]]]  # teachers that publish while they train
    hint = "[ensemble: {teachers: t1, student: s, objective: hint, tap: {of: big, to: small}, weight: 2}]"
    assert flows(plan(hint, "t1 s"))[1] == taught(
        "t1", "s", "hint", stream="train", weight=2.0, tap={"of": "big", "to": "small"}
    )


def test_an_ensembles_list_of_layers_is_a_flow_for_each():
    pairs = [{"of": "big", "to": "small"}, "mid"]
    planned = plan(f"[ensemble: {{teachers: t1, student: s, objective: hint, tap: {pairs}, weight: 2}}]", "t1 s")
    assert flows(planned)[1]["tap"] == [{"of": "big", "to": "small"}, {"of": "mid", "to": "mid"}]
    taps = [(edge.tap.of, edge.tap.to, edge.weight) for edge in planned.edges if edge.tap]
    assert taps == [("big", "small", 2.0), ("mid", "mid", 2.0)]


# -- chain -------------------------------------------------------------------------------------------------------------


def test_chain():
    planned = plan("[chain: {agents: [t, a, s]}]", "t a s")
    assert flows(planned) == [
        labels("a", weight=0.5),
        taught("t", "a", stream="train", weight=0.5),
        labels("s", weight=0.5),
        taught("a", "s", stream="train", weight=0.5),
    ]
    assert stages(planned) == [[["t"]], [["a"]], [["s"]]]


def test_dense_chain():
    planned = plan("[chain: {agents: [t, a, b, s], dense: true, labels: 0.2, weight: 0.8}]", "t a b s")
    assert [(flow["from"], flow["to"], flow["weight"]) for flow in flows(planned)] == [
        ("labels", "a", 0.2), ("t", "a", 0.8),
        ("labels", "b", 0.2), ("t", "b", 0.8), ("a", "b", 0.8),
        ("labels", "s", 0.2), ("t", "s", 0.8), ("a", "s", 0.8), ("b", "s", 0.8),
    ]  # fmt: skip
    assert stages(planned) == [[["t"]], [["a"]], [["b"]], [["s"]]]


def test_a_group_in_a_chain_speaks_through_a_consensus():
    planned = plan("[chain: {agents: [t, [a, b], s], consensus: median, stream: u}]", "t a b s")
    assert flows(planned) == [
        labels(["a", "b"], weight=0.5),
        taught("t", ["a", "b"], stream="u", weight=0.5),
        {"from": ["a", "b"], "to": "c", "stream": "u"},
        labels("s", weight=0.5),
        taught("c", "s", weight=0.5),
    ]
    assert planned.spec.dump()["consensus"] == {"c": {"rule": "median"}}
    assert stages(planned) == [[["t"]], [["a"], ["b"]], [["s"]]]


def test_generations_are_agents_of_their_own():
    net = {"model": {"mlp": {"hidden": [8]}}, "seed": 3, "train": {"epochs": 2}}
    mesh = {"agents": {"net": net}, "connect": [{"chain": {"agents": "net", "generations": 3, "labels": None}}]}
    planned = make_plan(parse(mesh), registry())
    born = {name: value for name, value in net.items() if name != "seed"}
    assert planned.spec.dump()["agents"] == {"net": net, "net.g2": born, "net.g3": born}
    assert flows(planned) == [taught("net", "net.g2", stream="train"), taught("net.g2", "net.g3", stream="train")]
    assert stages(planned) == [[["net"]], [["net.g2"]], [["net.g3"]]]


# -- mutual ------------------------------------------------------------------------------------------------------------


def test_mutual():
    planned = plan("[mutual: {peers: [a, b, c]}]", "a b c")
    peer = {"stream": "train", "weight": 0.5, "refresh": "step"}
    assert flows(planned) == [
        labels("a"), taught(["b", "c"], "a", "kl", **peer),
        labels("b"), taught(["a", "c"], "b", "kl", **peer),
        labels("c"), taught(["a", "b"], "c", "kl", **peer),
    ]  # fmt: skip
    into_a = [(edge.source, edge.weight) for edge in planned.edges if edge.target == "a"]
    assert into_a == [("labels", 1), ("b", 0.5), ("c", 0.5)]  # the order in which losses are summed
    assert stages(planned) == [[["a", "b", "c"]]]
    assert step(planned) == ["f.a f.b f.c | u.a u.b u.c"]


def test_sequential_peers_see_those_before_them_updated():
    planned = plan("[mutual: {peers: [a, b, c], order: sequential}]", "a b c")
    into = {
        peer: [(edge.source, edge.sees) for edge in planned.edges if edge.target == peer and edge.source != "labels"]
        for peer in "abc"
    }
    assert into == {
        "a": [("b", "before"), ("c", "before")],
        "b": [("a", "after"), ("c", "before")],
        "c": [("a", "after"), ("b", "after")],
    }
    assert {edge.weight for edge in planned.edges if edge.source != "labels"} == {0.5}
    assert step(planned) == ["f.a f.b f.c | u.a | f+.a | u.b | f+.b | u.c"]


@pytest.mark.parametrize(
    ("graph", "pairs"),
    [
        ("ring", [("c", "a"), ("a", "b"), ("b", "c")]),
        ("[[a, b], [a, c], [b, c]]", [("a", "b"), ("a", "c"), ("b", "c")]),
    ],
)
def test_peers_on_other_graphs(graph, pairs):
    planned = plan(f"[mutual: {{peers: [a, b, c], graph: {graph}, weight: 3}}]", "a b c")
    drawn = [(edge.source, edge.target) for edge in planned.edges if edge.source != "labels"]
    assert drawn == pairs
    for peer in "abc":
        shares = [edge.weight for edge in planned.edges if edge.target == peer and edge.source != "labels"]
        assert shares == [] or sum(shares) == 3
    assert stages(planned) == [[["a", "b", "c"]]]


def test_stale_peers():
    planned = plan(f"[mutual: {{peers: [a, b], refresh: epoch, stale: snapshot, labels: 0, weight: {RAMP}}}]", "a b")
    stale = {"stream": "train", "weight": RAMP, "refresh": "epoch", "stale": "snapshot"}
    assert flows(planned) == [taught("b", "a", "kl", **stale), taught("a", "b", "kl", **stale)]
    assert stages(planned) == [[["a", "b"]]]


def test_peers_through_a_consensus_leave_themselves_out():
    planned = plan("[mutual: {peers: [a, b, c], consensus: lowest_ce, refresh: 10 steps}]", "a b c")
    assert flows(planned) == [
        labels(["a", "b", "c"]),
        {"from": ["a", "b", "c"], "to": "c2", "stream": "train", "refresh": "10 steps"},
        taught("c2", ["a", "b", "c"], "kl"),
    ]
    assert planned.spec.dump()["consensus"] == {"c2": {"rule": "lowest_ce", "include_self": False}}
    kept = plan("[mutual: {peers: [a, b], consensus: {rule: mean, include_self: true}}]", "a b")
    assert kept.consensus["c"].include_self
    assert stages(kept) == [[["a", "b"]]]


# -- self --------------------------------------------------------------------------------------------------------------


def test_self_by_the_average_of_the_weights():
    agents = {"s": {"model": "mlp", "view": {"augment": ["noise"]}, "train": {"batch_size": 8}, "seed": 4}}
    one = {"student": "s", "decay": 0.9, "stream": "u", "objective": "mse", "weight": RAMP}
    planned = make_plan(parse({"agents": agents, "connect": [{"self": one}]}), registry())
    follower = planned.spec.dump()["agents"]["s.ema"]
    ema = {"ema": {"of": "s", "decay": 0.9}}
    assert follower == {"update": ema, "view": {"augment": ["noise"]}, "train": {"batch_size": 8}}
    assert flows(planned) == [
        labels("s"),
        taught("s.ema", "s", "mse", stream="u", weight=RAMP, refresh="step"),
    ]
    assert stages(planned) == [[["s", "s.ema"]]]
    assert step(planned) == ["f.s.ema f.s@train f.s@u | u.s | u.s.ema"]


def test_self_by_the_last_epoch():
    planned = plan("[self: {students: [a, b], teacher: epoch, objective: ce, labels: 0.5}]", "a b")
    past = {"stream": "train", "refresh": "epoch", "stale": "recorded"}
    assert flows(planned) == [
        labels("a", weight=0.5), taught("a", "a", "ce", **past),
        labels("b", weight=0.5), taught("b", "b", "ce", **past),
    ]  # fmt: skip
    assert stages(planned) == [[["a"], ["b"]]]


def test_self_by_the_last_batch():
    planned = plan("[self: {student: a, teacher: batch}, self: {student: b, teacher: batch}]", "a b")
    past = {"stream": "replay", "refresh": "step", "stale": "recorded"}
    assert planned.spec.dump()["streams"] == {"replay": {"replay": True}}  # one stream for both
    assert flows(planned) == [labels("a"), taught("a", "a", "kl", **past), labels("b"), taught("b", "b", "kl", **past)]
    assert step(planned) == ["f.b@replay f.b@train | u.b"]


# -- rounds ------------------------------------------------------------------------------------------------------------


def test_rounds_of_a_council():
    planned = plan(
        "[rounds: {teachers: [t1, t2], students: [a, b], rounds: 3, labels_stream: few, digest_epochs: 2,"
        " agreement: 0.9, patience: 2}]",
        "t1 t2 a b",
        streams={"few": {"size": 9}},
    )
    assert flows(planned) == [
        labels(["a", "b"], "few", lesson="own"),
        {"from": ["t1", "t2"], "to": "c", "stream": "transfer", "refresh": "once"},
        {"from": ["a", "b"], "to": "c", "stream": "transfer", "refresh": "round"},
        taught("c", ["a", "b"], lesson="digest"),
    ]
    assert planned.spec.dump()["program"] == [
        {
            "of": ["a", "b"],
            "repeat": 3,
            "until": {"agreement": 0.9, "patience": 2},
            "do": [
                {"lesson": "own", "epochs": 1},
                {"publish": ["a", "b"], "to": "c"},
                {"lesson": "digest", "epochs": 2},
            ],
        }
    ]
    assert stages(planned) == [[["t1"], ["t2"]], [["a", "b"]]]
    assert step(planned) == ["f.a f.b | u.a u.b"] * 2
    assert [edge.stream for edge in planned.edges if edge.target == "t1"] == ["train"]  # teachers learn from labels


def test_rounds_without_teachers():
    planned = plan("[rounds: {students: 'p[*]', include_self: false}]", {"p": {"count": 3}})
    assert [flow["to"] for flow in flows(planned)] == [["p[0]", "p[1]", "p[2]"], "c", ["p[0]", "p[1]", "p[2]"]]
    assert not planned.consensus["c"].include_self
    assert stages(planned) == [[["p[0]", "p[1]", "p[2]"]]]


def test_rounds_without_labels_have_no_lesson_of_their_own():
    planned = plan("[rounds: {teachers: t1, students: [a, b], labels: null}]", "t1 a b")
    assert planned.spec.dump()["program"][0]["do"] == [
        {"publish": ["a", "b"], "to": "c"},
        {"lesson": "digest", "epochs": 1},
    ]
    assert "labels" not in [flow["from"] for flow in flows(planned)]


# -- together ----------------------------------------------------------------------------------------------------------

COMPOSED = """
- ensemble: {teachers: [t1, t2], student: a}
- chain: {agents: [a, b, [p, q]]}
- mutual: {peers: [p, q], labels: 0.5}
"""


def test_an_ensemble_teaches_a_chain_that_ends_in_a_mutual_group():
    planned = plan(COMPOSED, "t1 t2 a b p q")
    assert stages(planned) == [[["t1"], ["t2"]], [["a"]], [["b"]], [["p", "q"]]]
    into_p = [(edge.source, edge.weight, edge.refresh) for edge in planned.edges if edge.target == "p"]
    assert into_p == [("labels", 0.5, None), ("b", 0.5, "once"), ("q", 1.0, "step")]
    assert step(planned) == ["f.p f.q | u.p u.q"]


@pytest.mark.parametrize(
    "connect",
    [
        COMPOSED,
        "[ensemble: {teachers: [t1, t2], student: a}]",
        "[chain: {agents: [a, [p, q]], generations: 2}]",
        "[mutual: {peers: [a, b, p], order: sequential}]",
        "[self: {student: a}]",
        "[self: {student: a, teacher: batch}]",
        "[rounds: {teachers: t1, students: [a, b]}]",
    ],
)
def test_the_long_form_stays_as_it_is(connect):
    planned = plan(connect, "t1 t2 a b p q")
    assert not planned.spec.connect
    again = parse(planned.spec.dump())
    assert again == planned.spec
    assert draw(again, registry()) == again
    assert stages(make_plan(again, registry())) == stages(planned)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(2, 7), st.sampled_from(["all", "ring"]), st.sampled_from(["simultaneous", "sequential"]))
def test_mutual_of_any_size(count, graph, order):
    if graph == "ring" and count == 2:
        count = 3
    peers = [f"p{number}" for number in range(count)]
    planned = plan(f"[mutual: {{peers: [{', '.join(peers)}], graph: {graph}, order: {order}}}]", " ".join(peers))
    for peer in peers:
        into = [edge for edge in planned.edges if edge.target == peer]
        assert into[0].source == "labels"
        assert len(into) == (count if graph == "all" else 2)
        assert sum(edge.weight for edge in into[1:]) == pytest.approx(1)
    assert stages(planned) == [[sorted(peers)]]
