"""What is made on each private sample crosses where its flow says so, and by no other way."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from test_gatekeeper import Caller, Room, hosted, one_at_a_time, said

from kdmesh.backends.calls import Calls, Unlike
from kdmesh.backends.inline import InlineBackend
from kdmesh.backends.parties import PartiesBackend
from kdmesh.engine.check import examine
from kdmesh.engine.launch import blueprint, run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.disclosed import crossings
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.host import Host
from kdmesh.parties.member import Member
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.streams.private import NOBODY

OWN = {"of": "train", "shards": {"by": "dirichlet", "alpha": 1, "of": ["a", "b"]}, "private": True}
SMALL = {"model": {"mlp": {"hidden": [8]}}, "taps": {"body": "layers.0"}}
LABELS = {"from": "labels", "to": "server", "objective": "ce", "stream": "own", "lesson": "of-a", "discloses": "labels"}
SEES = {"from": "a", "to": "server", "as": "input", "signal": "hidden", "tap": "body", "stream": "own",
        "refresh": "round", "discloses": "features"}  # fmt: skip
SAYS = {"from": "a", "to": "server", "objective": "kl", "stream": "own", "refresh": "round", "lesson": "of-a",
        "discloses": "features"}  # fmt: skip
BACK = {"from": "server", "to": "a", "objective": "kl", "stream": "own", "refresh": "round", "lesson": "clients"}


def of_b(flow):
    named = {"a": "b", "server": "server-b", "of-a": "of-b"}
    return {key: named.get(value, value) for key, value in flow.items()}


FLOWS = [
    {"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own", "lesson": "clients"},
    *(turned for flow in (SEES, LABELS, SAYS, BACK) for turned in (flow, of_b(flow))),
]
MESH = {
    "data": {"dataset": "digits", "train": 120, "validation": 20, "test": 20},
    "streams": {"own": OWN},
    "agents": {"a": SMALL, "b": SMALL, "server": {"model": {"mlp": {"hidden": [12]}}},
               "server-b": {"weights_of": "server"}},
    "parties": {"north": "a", "south": "b"},
    "flows": FLOWS,
    "program": [{"of": ["a", "b", "server", "server-b"], "repeat": 2, "do": [
        {"lesson": "clients", "epochs": 1}, {"publish": ["a", "b"]}, {"lesson": "of-a", "epochs": 1},
        {"lesson": "of-b", "epochs": 1}, {"publish": ["server", "server-b"]}]}],
    "train": {"batch_size": 32},
}  # fmt: skip


def without(flow, field):
    return {key: value for key, value in flow.items() if key != field}


def plan(*flows, **more):
    """With other flows than those of ``FLOWS`` that go from, or to, a and the server."""
    kept = [flow for flow in FLOWS if flow not in (SEES, LABELS, SAYS, BACK)]
    return make_plan(parse({**MESH, "flows": [*kept, *flows], **more}), registry())


def test_features_and_labels_cross_where_their_flows_say_so():
    found = {(one.what, one.source, one.stream, one.private, one.back) for one in crossings(plan(*FLOWS))}
    assert {
        ("body", "north", "own", True, False),
        ("logits", "north", "own", True, False),
        ("labels", "north", "own", True, False),
        ("logits", "coordinator", "own", False, True),
        ("body", "north", "validation, test", False, False),
    } <= found


@pytest.mark.parametrize(
    ("flows", "where", "said", "instead"),
    [
        ([without(SEES, "discloses"), LABELS], "flows.5", "a -> server would carry signals", "discloses: features"),
        ([SEES, without(LABELS, "discloses")], "flows.6", "labels of the private stream 'own' would leave a", "labels"),
        ([SEES, LABELS, without(SAYS, "discloses")], "flows.7", "a -> server would carry", "discloses: features"),
        ([SEES, LABELS, {**without(SAYS, "discloses"), "objective": "hint", "tap": {"of": "body", "to": "layers.0"}}],
         "flows.7", "a -> server would carry", "discloses: features"),
        ([SEES, {**SAYS, "objective": "dkd"}], "flows.6", "dkd needs labels, and those of the private stream 'own'",
         "discloses: labels"),
        ([SEES, LABELS, {**SAYS, "discloses": "prototypes"}], "flows.7", "would carry", "discloses: features"),
        ([SEES, LABELS, {**BACK, "discloses": "features"}], "flows.7.discloses", "no private samples", "leave it out"),
        ([SEES, {**LABELS, "denominator": {"group": "digit"}}], "flows.6.denominator", "no column", "leave it out"),
    ],
)  # fmt: skip
def test_nothing_else_is_told(flows, where, said, instead):
    with pytest.raises(MeshError, match=said) as error:
        plan(*flows)
    assert error.value.where == where and instead in error.value.instead


@pytest.mark.parametrize("disclosed", [{}, {"discloses": "features"}])
def test_a_consensus_of_one_is_no_way_round(disclosed):
    flows = [{"from": "a", "to": "c", "stream": "own", "refresh": "round", **disclosed},
             {"from": "c", "to": "server", "objective": "kl", "lesson": "of-a"}]  # fmt: skip
    with pytest.raises(MeshError, match="a -> server would carry signals made on it"):
        plan(SEES, LABELS, *flows, consensus={"c": "mean"})


def test_a_gradient_is_no_way_round():
    """Of an adapter that the server trains on a party's features, say: none passes between parties."""
    with pytest.raises(MeshError, match=r"at each step|detach"):
        plan({**SEES, "refresh": "step", "detach": False}, LABELS)


def test_who_was_told_tells_nobody_else_in_silence():
    other = {"from": "server", "to": "c", "objective": "kl", "stream": "own", "refresh": "round", "lesson": "of-a"}
    sees = {"from": "server", "to": "c", "as": "input", "stream": "own", "refresh": "round"}
    agents = {**MESH["agents"], "c": {"model": {"mlp": {"hidden": [4]}}}}
    program = [{**MESH["program"][0], "of": [*MESH["program"][0]["of"], "c"]}]
    more = {"agents": agents, "parties": {**MESH["parties"], "west": "c"}, "program": program}
    with pytest.raises(MeshError, match="server -> c would carry signals made on it"):
        plan(SEES, LABELS, SAYS, BACK, sees, other, **more)
    told = [{**flow, "discloses": "features"} for flow in (sees, other)]
    made = plan(SEES, LABELS, SAYS, BACK, *told, **more)
    assert made.whose("c", "own") == "a"


def test_weights_that_learned_on_features_leave_where_their_flow_says_so():
    more = {"agents": {**MESH["agents"], "c": {"model": {"mlp": {"hidden": [12]}}, "update": "merged"}}}
    more |= {"parties": {**MESH["parties"], "west": "c"}}
    more |= {"program": [{**MESH["program"][0], "of": [*MESH["program"][0]["of"], "c"]}]}
    with pytest.raises(MeshError, match="weights of server, which learned on the private stream 'own'"):
        plan(SEES, LABELS, SAYS, BACK, {"from": "server", "to": "c", "as": "weights", "refresh": "round"}, **more)


def test_labels_of_one_s_own_samples_are_no_disclosure():
    flows = [{**FLOWS[0], "discloses": "labels"}, *FLOWS[1:]]
    with pytest.raises(MeshError, match="labels -> a tells others of no private samples"):
        make_plan(parse({**MESH, "flows": flows}), registry())


@pytest.fixture(scope="module")
def spec():
    return parse(MESH)


@pytest.fixture(scope="module")
def simulated(spec):
    summary, _, _ = run_once(Request(spec, "inline"))
    return summary


def test_parties_apart_have_the_bits_of_a_simulation(spec, simulated, tmp_path):
    room = Room({name: Member(spec, name, tmp_path / name) for name in spec.parties})
    one_at_a_time(room)
    backend = PartiesBackend(room)
    summary, _, _ = run_once(Request(spec, hosted=backend), session=hosted(backend))
    for name, agent in simulated["agents"].items():
        assert summary["agents"][name]["weights_sha256"] == agent["weights_sha256"]
        assert summary["agents"][name]["metrics"] == agent["metrics"]
    left = [json.loads(line) for line in (tmp_path / "north" / "left.jsonl").read_text().splitlines()]
    assert {(line["source"], line["output"]) for line in left if line["stream"] == "own"} == {
        ("a", ""), ("a", "body"), ("a", "labels"),
    }  # fmt: skip
    checked = examine(make_plan(spec, registry()))
    rows = checked.table.x[checked.streams["own"].rows].flatten(1)
    crossed = b"".join(part for link in room.members.values() for part in link.sent)
    assert not any(row.numpy().tobytes() in crossed for row in rows)
    labels = checked.table.y[checked.streams["own"].rows_for("a")]
    assert labels.numpy().tobytes() in crossed


def test_the_server_learns_and_is_heard(spec, simulated):
    """Of each party's samples, and a round later."""
    assert simulated["agents"]["server"]["updates"] > 0
    deaf = {**MESH, "flows": [flow for flow in FLOWS if flow not in (BACK, of_b(BACK))]}
    other, _, _ = run_once(Request(parse(deaf), "inline"))
    assert other["agents"]["a"]["weights_sha256"] != simulated["agents"]["a"]["weights_sha256"]
    once = {**MESH, "program": [{**MESH["program"][0], "repeat": 1}]}
    first, _, _ = run_once(Request(parse(once), "inline"))
    alone, _, _ = run_once(Request(parse({**once, "flows": deaf["flows"]}), "inline"))
    assert first["agents"]["a"]["weights_sha256"] == alone["agents"]["a"]["weights_sha256"]  # nothing to hear yet


def test_a_server_s_host_has_labels_that_it_was_told_and_no_samples(spec):
    made = make_plan(spec, registry())
    checked = examine(made)
    config, _ = blueprint(Request(spec, "inline"), made, checked)
    server, party = (
        Host(name, config, checked.table, checked.streams, registry()) for name in ("coordinator", "north")
    )
    rows = checked.streams["own"].rows_for("a")
    assert torch.isnan(server.table.x[rows]).all() and (server.table.y[rows] == NOBODY).all()
    waiting = [edge.id for edge in made.edges if edge.source == "labels" and edge.target == "server"]
    assert not server.objectives.keys() & {*waiting}
    server.take_labels(party.tell_labels("a", "own"))
    assert torch.isnan(server.table.x[rows]).all() and torch.equal(server.table.y[rows], checked.table.y[rows])
    assert (server.table.y[checked.streams["own"].rows_for("b")] == NOBODY).all()
    assert server.objectives.keys() >= {*waiting}


@pytest.fixture
def call(spec, tmp_path):
    member = Member(spec, "north", tmp_path)
    assert said(member, {"open": 1, "seed": 0, "sizes": {}}, incarnation=0) == {"value": None}
    return Caller(member)


@pytest.mark.parametrize(
    ("method", "args", "why"),
    [
        ("publish", ["a", "own", ("layers.0",)], "layers.0 of a on 'own' do not leave"),
        ("publish", ["a", "train", ("body",)], "body of a on 'train' do not leave"),
        ("tell_labels", ["a", "train"], "labels of a on 'train' do not leave"),
        ("export_state", ["a"], "weights of a do not leave"),
    ],
)
def test_a_party_tells_what_its_flows_disclose_and_nothing_more(call, method, args, why):
    found = call(method, *args)
    assert found == {"value": None}
    assert why in said(call.member, {"fetch": call.number})["refused"]


def test_labels_are_told_of_the_party_s_own_agents_alone(call):
    assert "no agent here" in call("tell_labels", "b", "own")["refused"]
    assert "a stream 'x' that there is not" in call("tell_labels", "a", "x")["refused"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda labels: labels[:-1], "labels of a of int64"),
        (lambda labels: labels.astype(np.int32), "labels of a of int32"),
        (lambda labels: labels + 5, "labels of a that there are not"),
        (lambda labels: np.stack([labels, labels], 1), "labels of a of int64"),
    ],
)
def test_a_coordinator_takes_labels_and_no_samples_in_their_place(spec, change, said):
    made = make_plan(spec, registry())
    checked = examine(made)
    config, _ = blueprint(Request(spec, "inline"), made, checked)
    calls = Calls(made, checked.streams, config.shapes, config.statistics, 10)
    labels = checked.table.y[checked.streams["own"].rows_for("a")].numpy()
    key = ("a", "own", "labels", "publish")

    def packed(array):
        return {key: [("", "dense", [("dense", array, f"torch.{array.dtype}")])]}

    assert list(calls.result("tell_labels", packed(labels), ("a", "own"))) == [key]
    with pytest.raises(Unlike, match=said):
        calls.result("tell_labels", packed(change(labels)), ("a", "own"))


def test_streams_that_one_party_has_alone_are_answered_for_alike(tmp_path):
    """Private, and not divided."""
    streams = {"left": {"of": "train", "size": 0.4, "private": True},
               "right": {"of": "train", "rest_of": "left", "private": True}}  # fmt: skip

    def side(flow):
        name = "right" if "b" in (flow["from"], flow["to"]) or str(flow["to"]).endswith("-b") else "left"
        return {**flow, "stream": name}

    flows = [side({**FLOWS[0], "to": name}) for name in "ab"] + [side(flow) for flow in FLOWS[1:]]
    spec = parse({**MESH, "streams": streams, "flows": flows})
    simulated, _, _ = run_once(Request(spec, "inline"))
    room = Room({name: Member(spec, name, tmp_path / name) for name in spec.parties})
    one_at_a_time(room)
    backend = PartiesBackend(room)
    summary, _, _ = run_once(Request(spec, hosted=backend), session=hosted(backend))
    assert [agent["weights_sha256"] for agent in summary["agents"].values()] == [
        agent["weights_sha256"] for agent in simulated["agents"].values()
    ]


class Killed(BaseException):
    """The process is gone."""


def test_a_run_that_breaks_off_ends_with_the_same_bits(spec, simulated, tmp_path, monkeypatch):
    """Labels are told again; features come from its checkpoint."""
    inner = InlineBackend.call

    def run(last, **more):
        calls = 0

        def call(self, *args, **options):
            nonlocal calls
            calls += 1
            if calls == last:
                raise Killed
            return inner(self, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(InlineBackend, "call", call)
            return run_once(Request(spec, "inline", checkpoint_seconds=0, **more))[0], calls

    _, calls = run(0, out=tmp_path / "whole")
    for last in (calls // 3, calls // 2, 2 * calls // 3):
        with suppress(Killed, KeyboardInterrupt):
            run(last, out=tmp_path / str(last))
        (folder,) = (tmp_path / str(last)).glob("*/*")
        assert not (folder / "summary.json").exists()
        summary, _ = run(0, resume=folder)
        for name, agent in simulated["agents"].items():
            assert summary["agents"][name]["weights_sha256"] == agent["weights_sha256"], (name, last)


def test_cards_and_summary_say_what_was_disclosed(spec, tmp_path):
    summary, folder, _ = run_once(Request(spec, "inline", out=tmp_path))
    said = "a discloses features to server, which tell of private samples: no privacy is claimed"
    assert said in summary["notes"]
    assert f"- {said}" in (folder.root / "agents" / "server" / "README.md").read_text()


@pytest.mark.ray
def test_parties_in_processes_of_their_own_have_the_same_bits(spec, simulated, ray_session):
    summary, _, _ = run_once(Request(spec), session=ray_session)
    assert [agent["weights_sha256"] for agent in summary["agents"].values()] == [
        agent["weights_sha256"] for agent in simulated["agents"].values()
    ]


def test_texts_of_a_party_are_seen_by_nobody_as_features(tmp_path):
    """Which is said of the flow, and not of the model that reads numbers."""
    (tmp_path / "texts.jsonl").write_text(
        "\n".join(json.dumps({"text": f"no {one}", "label": "ab"[one % 2]}) for one in range(40))
    )
    tiny = {
        "model_type": "bert",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    reads = {
        "model": {"hf": {"config": tiny, "tokenizer": {"characters": {}}}},
        "taps": {"body": "bert.encoder.layer.0"},
    }
    made = {**MESH, "data": {"dataset": {"text": {"path": str(tmp_path / "texts.jsonl"), "label": "label"}}}}
    made["agents"] = {**MESH["agents"], "a": reads, "b": reads}
    with pytest.raises(MeshError, match="server would see what a says of texts in their place") as error:
        examine(make_plan(parse(made), registry()))
    assert error.value.where == "flows.1" and "objective: kl, stream: transfer" in error.value.instead
