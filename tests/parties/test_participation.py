"""Rounds in which not all parties take part: who is drawn, what the others do not do, and records that are replayed."""

from __future__ import annotations

import argparse
import json
import os
import signal
from functools import partial

import pytest
from test_gatekeeper import Near, Room, hosted, one_at_a_time
from test_party_runs import SHARDS, TRAIN, council, weights

from kdmesh.backends.parties import PartiesBackend
from kdmesh.cli.party import rounds
from kdmesh.consensus import Staleness
from kdmesh.contracts.events import Note, RoundFinished
from kdmesh.engine.attendance import replayed
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import HostLost, MeshError
from kdmesh.graph.participation import awaited, drawn
from kdmesh.graph.planner import make_plan
from kdmesh.parties.member import Member
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

PARTIES = {"north": ["a"], "south": ["b"], "east": ["c"]}


def apart(**participation):
    return {**council(), "parties": PARTIES, "participation": participation}


def aged(**participation):
    made = apart(stale="keep", **participation)
    made["connect"][0]["rounds"]["consensus"] = {"rule": {"staleness": {"exponent": 1}}}
    return made


ALONE = [{"from": "labels", "to": ["a", "b", "c"], "objective": "ce", "stream": "own"}]


def updates(summary):
    return {name: agent["updates"] for name, agent in summary["agents"].items()}


def test_who_is_drawn_depends_on_the_seed_and_the_round_alone():
    spec = parse(apart(fraction=0.34, quorum=1))
    rounds = [drawn(spec, number) for number in range(1, 41)]
    assert {len(names) for names in rounds} == {1} and {name for (name,) in rounds} == {*PARTIES}
    assert rounds == [drawn(parse(apart(fraction=0.34, quorum=1)), number) for number in range(1, 41)]
    other = spec.model_copy(update={"seed": 1})
    assert rounds != [drawn(other, number) for number in range(1, 41)]
    assert {len(drawn(parse(apart(fraction=0.34, quorum=2)), number)) for number in range(1, 9)} == {2}
    assert drawn(parse(apart()), 1) == [*PARTIES]


def test_where_all_take_part_nothing_changes():
    assert weights(apart(quorum=3))[0] == weights({**council(), "parties": PARTIES})[0]


def test_who_does_not_take_part_does_nothing():
    found, summary = weights(apart(attendance=[["north", "south"], ["north", "south"], ["north", "south"]]))
    fresh = weights(apart(attendance=[["north"]] * 3))[1]
    whole = weights({**council(), "parties": PARTIES})[1]
    assert updates(summary)["c"] == 0 and updates(fresh)["b"] == updates(fresh)["c"] == 0
    assert updates(summary)["a"] == updates(whole)["a"] > 0 and updates(summary)["b"] == updates(whole)["b"]
    assert fresh["agents"]["c"]["weights_sha256"] == found["c"]
    assert [one["attended"] for one in summary["rounds"]] == [["north", "south"]] * 3


def test_without_a_third_the_others_have_the_bits_of_a_mesh_of_two():
    """What is forgotten of who is not there is nothing that the others could have read."""
    found, _ = weights(apart(attendance=[["north", "south"]] * 3))
    made = council()
    made["connect"][0]["rounds"]["students"] = ["a", "b"]
    made["flows"] = [{"from": "labels", "to": "c", "objective": "ce", "stream": "own"}]
    two, _ = weights(made)
    assert {name: found[name] for name in "ab"} == {name: two[name] for name in "ab"}


def test_who_comes_back_goes_on_from_its_last_round():
    """And in its samples where it was: what c learns of labels alone is the same wherever its rounds fall."""
    made = apart()
    made["connect"], made["consensus"] = [], {"node": "mean"}
    made["flows"] = [
        {"from": "labels", "to": ["a", "b", "c"], "objective": "ce", "stream": "own", "lesson": "own"},
        {"from": ["a", "b", "c"], "to": "node", "stream": "transfer", "refresh": "round"},
        {"from": "node", "to": ["a", "b"], "objective": "kl", "lesson": "digest"},
    ]
    lines = [{"lesson": "own", "epochs": 1}, {"publish": ["a", "b", "c"]}, {"lesson": "digest", "epochs": 1}]

    def of(*rounds):
        program = [{"of": ["a", "b", "c"], "repeat": len(rounds), "do": lines}]
        return weights({**made, "program": program, "participation": {"attendance": [*rounds]}})[0]

    always = of(*[[*PARTIES]] * 4)
    late = of([*PARTIES], ["north", "south"], [*PARTIES], ["north"], [*PARTIES], [*PARTIES])
    assert late["c"] == always["c"] and late["a"] != always["a"]


def test_last_answers_are_forgotten_or_kept():
    rounds = [[*PARTIES], ["north", "south"], ["north", "south"]]
    forgot, kept = (weights(apart(attendance=rounds, stale=how))[0] for how in ("forget", "keep"))
    assert forgot["a"] != kept["a"] and forgot["c"] == kept["c"]


FEDAVG = {
    "data": {"dataset": "digits", "transfer": 0, "train": 300, "validation": 60, "test": 60},
    "streams": {"own": SHARDS},
    "agents": {"server": {"model": {"mlp": {"hidden": [8]}}, "update": "merged"}} | {
        name: {"model": {"mlp": {"hidden": [8]}}, "init_of": "server"} for name in "abc"},
    "parties": PARTIES,
    "flows": [
        {"from": "labels", "to": ["a", "b", "c"], "objective": "ce", "stream": "own"},
        {"from": ["a", "b", "c"], "to": "server", "as": "weights", "weight": "samples", "stream": "own",
         "refresh": "round", "discloses": "weights"},
        {"from": "server", "to": ["a", "b", "c"], "as": "weights", "refresh": "round"},
    ],
    "program": [{"of": ["a", "b", "c", "server"], "repeat": 3, "do": [
        {"publish": ["server"]}, {"train": ["a", "b", "c"], "epochs": 1}, {"publish": ["a", "b", "c"]}]}],
    "train": TRAIN,
}  # fmt: skip


LINES = FEDAVG["program"][0]["do"]


def repeated(*lines):
    return {**FEDAVG, "participation": {}, "program": [{"of": ["a", "b", "c", "server"], "do": [*lines]}]}


def test_weights_are_averaged_of_who_takes_part():
    """FedAvg: who is drawn is sent the server's weights first, and alone counts in their mean."""
    found, _ = weights({**FEDAVG, "participation": {"attendance": [["north"], ["south"], ["south"]]}})
    assert found["server"] == found["b"] and found["a"] not in (found["b"], found["c"])
    every, _ = weights({**FEDAVG, "participation": {"fraction": 1.0}})
    assert every == weights(FEDAVG)[0]


@pytest.mark.ray
def test_on_ray_it_has_the_same_bits(ray_session):
    made = apart(fraction=0.6)
    assert weights(made, session=ray_session)[0] == weights(made)[0]


def beside(rounds, **participation):
    """South has a frozen teacher, which answers once, before the first round."""
    made = {**apart(**participation), "connect": [], "consensus": {"node": "mean"}}
    made["agents"] = {**made["agents"], "t": {"model": {"mlp": {"hidden": [8]}}, "update": "frozen", "seed": 3}}
    made["parties"] = {**PARTIES, "south": ["b", "t"]}
    made["flows"] = [
        {"from": "labels", "to": ["a", "b", "c"], "objective": "ce", "stream": "own", "lesson": "own"},
        {"from": ["a", "b", "c"], "to": "node", "stream": "transfer", "refresh": "round"},
        {"from": "t", "to": "node", "stream": "transfer", "refresh": "once"},
        {"from": "node", "to": ["a", "b", "c"], "objective": "kl", "lesson": "digest"},
    ]
    lines = [{"lesson": "own", "epochs": 1}, {"publish": ["a", "b", "c"]}, {"lesson": "digest", "epochs": 1}]
    made["program"] = [{"of": ["a", "b", "c"], "repeat": rounds, "do": lines}]
    return made


def test_answers_that_are_given_once_count_again_when_their_party_is_back():
    away, always = ([*PARTIES], ["north", "east"], [*PARTIES]), [[*PARTIES]] * 3
    found = weights(beside(3, attendance=[*away]))[0]
    made = beside(3, attendance=[*away])
    del made["flows"][2]
    assert found["a"] != weights(made)[0]["a"] and found["a"] != weights(beside(3, attendance=always))[0]["a"]


def test_a_record_is_replayed(tmp_path):
    made = apart(fraction=0.6)
    found, summary = weights(made)
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    spec = replayed(parse(made), tmp_path)
    assert spec.participation.attendance == [one["attended"] for one in summary["rounds"]]
    again, _, _ = run_once(Request(spec, "inline"))
    assert {name: agent["weights_sha256"] for name, agent in again["agents"].items()} == found


@pytest.mark.parametrize("how", [apart, aged, partial(beside, 3)], ids=["forgotten", "aged", "once"])
def test_a_run_that_stops_goes_on_to_the_same_bits(how, tmp_path):
    """What who is away had last stands in checkpoints of rounds without it, and for how long they are."""
    made = how(attendance=[[*PARTIES], ["north", "south"], ["north"]])
    expected, _ = weights(made)

    def stop(event):
        if isinstance(event, RoundFinished) and event.round == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_once(Request(parse(made), "inline", out=tmp_path, report=False, listeners=(stop,)))
    (root,) = tmp_path.glob("*/*")
    summary, _, _ = run_once(Request(parse(made), "inline", resume=root, report=False))
    assert {name: agent["weights_sha256"] for name, agent in summary["agents"].items()} == expected
    assert [one["attended"] for one in summary["rounds"]] == made["participation"]["attendance"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({**council(), "participation": {}}, "there are no parties"),
        (apart(quorum=4), "4 parties, and there are 3"),
        (apart(fraction=0), "greater than 0"),
        (apart(timeout=-1), "greater than 0"),
        (apart(attendance=[["north"]] * 2), "in 2 rounds, and there may be 3"),
        (apart(attendance=[["west"]] * 3), "there is no party 'west'"),
        (apart(attendance=[["north"], [], ["north"]]), "nobody takes part"),
        (apart(attendance=[["north"]] * 3, quorum=2), "have no effect"),
        ({**apart(), "connect": [], "flows": ALONE}, r"round by round.* here there are 3 stages: a, b, c"),
        (repeated({"repeat": 2, "do": LINES}, {"repeat": 2, "do": LINES}), r"round by round.* here it has 2"),
        (repeated({"repeat": 2, "do": [{"repeat": 2, "do": LINES}, LINES[0]]}), "here its rounds have an inner one"),
    ],
)
def test_what_cannot_be_is_refused(fields, said):
    with pytest.raises(MeshError, match=said):
        make_plan(parse(fields), registry())


class Leaving(Near):
    """A link to a party that is lost, and comes back."""

    def ask(self, message):
        if self.gone:
            lost = HostLost("gone", where="parties.south")
            lost.host = "south"
            raise lost
        return super().ask(message)

    def back(self):
        self.gone = False
        self.member.joined()


def met(tmp_path, fields, **declines):
    """Parties that have met, in this process; one at a time computes."""
    spec = parse(fields)
    members = {name: Member(spec, name, tmp_path / name, declines=declines.get(name, lambda number: False))
               for name in spec.parties}  # fmt: skip
    room = Room(members)
    room.members = {name: Leaving(member) for name, member in members.items()}
    one_at_a_time(room)
    return spec, room


def apart_run(spec, room, tmp_path, *listeners):
    backend = PartiesBackend(room)
    request = Request(spec, hosted=backend, out=tmp_path / "runs", report=False, listeners=listeners)
    return run_once(request, session=hosted(backend))[0]


def rounds_of(summary):
    return [one["attended"] for one in summary["rounds"]]


def same_as_replayed(summary, fields):
    fields = {
        **fields,
        "participation": {"attendance": rounds_of(summary), "stale": fields["participation"].get("stale", "forget")},
    }
    again, _, _ = run_once(Request(parse(fields), "inline"))
    return all(agent["weights_sha256"] == summary["agents"][name]["weights_sha256"]
               for name, agent in again["agents"].items())  # fmt: skip


def test_who_declines_a_round_is_not_in_it(tmp_path):
    fields = apart(quorum=2)
    spec, room = met(tmp_path, fields, east=lambda number: number == 2)
    summary = apart_run(spec, room, tmp_path)
    assert rounds_of(summary) == [[*PARTIES], ["north", "south"], [*PARTIES]]
    assert same_as_replayed(summary, fields)


@pytest.mark.parametrize("how", [apart, aged, partial(beside, 4)], ids=["forgotten", "aged", "once"])
def test_who_is_lost_in_a_round_was_not_in_it_and_comes_back(how, tmp_path):
    fields = how(quorum=2)
    for drawn_rounds in fields["connect"]:
        drawn_rounds["rounds"]["rounds"] = 4
    spec, room = met(tmp_path, fields)
    south, seen = room.members["south"], []

    def watch(event):
        if isinstance(event, RoundFinished):
            seen.append((event.round, event.attended))
            if event.round == 2 and "south" in event.attended:
                south.gone = True
            elif event.round == 3:
                south.back()

    summary = apart_run(spec, room, tmp_path, watch)
    assert seen == [(1, [*PARTIES]), (2, [*PARTIES]), (2, ["north", "east"]), (3, ["north", "east"]), (4, [*PARTIES])]
    assert rounds_of(summary) == [names for _, names in (seen[0], *seen[2:])]
    assert same_as_replayed(summary, fields)


def test_below_the_quorum_a_run_waits(tmp_path):
    fields = apart(quorum=3)
    asked, notes = [], []

    def declines(number):
        asked.append(number)
        return number == 2 and asked.count(2) < 3

    spec, room = met(tmp_path, fields, east=declines)
    summary = apart_run(spec, room, tmp_path, lambda event: notes.append(event) if isinstance(event, Note) else None)
    assert rounds_of(summary) == [[*PARTIES]] * 3 and asked == [1, 2, 2, 2, 3]
    (said,) = [note.text for note in notes if "waits" in note.text]
    assert said == "round 2 waits: 3 of north, south, east are to take part; so far north, south"
    assert same_as_replayed(summary, fields)


@pytest.mark.parametrize(("text", "found"), [("2", {2}), ("2,4-6", {2, 4, 5, 6}), ("3-2", set())])
def test_rounds_to_decline_are_read(text, found):
    assert rounds(text) == found


@pytest.mark.parametrize("text", ["", "x", "2-", "-2", "1,,2", "1.5"])
def test_what_is_no_round_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no round: 3, or 4-6"):
        rounds(text)


def test_last_answers_count_less_the_older_they_are(monkeypatch):
    """By the rounds in a row that a party missed; in the end, when all are there, all count alike."""
    ages = []

    def noted(self, values, *, age=(), **more):
        ages.append(age)
        return weighed(self, values, age=age, **more)

    weighed = Staleness.forward
    monkeypatch.setattr(Staleness, "forward", noted)
    rounds = [[*PARTIES], ["north", "south"], ["north"], ["north", "south", "east"]]
    made = aged(attendance=rounds)
    made["connect"][0]["rounds"]["rounds"] = 4
    found, _ = weights(made)
    monkeypatch.undo()
    assert list(dict.fromkeys(ages)) == [(0, 0, 0), (0, 0, 1), (0, 1, 2)] and ages[-1] == (0, 0, 0)
    mean = apart(attendance=rounds, stale="keep")
    mean["connect"][0]["rounds"]["rounds"] = 4
    assert weights(mean)[0]["a"] != found["a"] == weights(made)[0]["a"]
    assert weights(aged(attendance=[[*PARTIES]] * 3))[0] == weights(aged())[0]


def test_a_rule_that_weighs_old_answers_has_some():
    for made in ({**aged(), "participation": {"stale": "forget"}}, {**aged(), "participation": None}):
        with pytest.raises(
            MeshError, match=r"weighs last answers of parties that are away, and none are kept"
        ) as error:
            make_plan(parse({name: value for name, value in made.items() if value is not None}), registry())
        assert "stale: keep" in error.value.instead


@pytest.mark.parametrize("how", [apart, aged])
def test_a_run_begins_without_who_comes_later(how, tmp_path):
    """It is taken in, and begins as its file says."""
    fields = how(quorum=2)
    fields["connect"][0]["rounds"]["rounds"] = 4
    spec, room = met(tmp_path, fields)
    east = room.members["east"]
    east.gone = True

    def watch(event):
        if isinstance(event, RoundFinished) and event.round == 2:
            east.back()

    summary = apart_run(spec, room, tmp_path, watch)
    assert rounds_of(summary) == [["north", "south"], ["north", "south"], [*PARTIES], [*PARTIES]]
    assert same_as_replayed(summary, fields) and summary["agents"]["c"]["updates"] > 0


def test_who_never_comes_is_not_waited_for(tmp_path):
    fields, notes = apart(quorum=2), []
    spec, room = met(tmp_path, fields)
    room.members["east"].gone = True
    summary = apart_run(spec, room, tmp_path, lambda event: notes.append(event) if isinstance(event, Note) else None)
    assert rounds_of(summary) == [["north", "south"]] * 3
    said = "east was never there: nobody trained c"
    assert said in summary["notes"] and [note.text for note in notes].count(said) == 1
    assert not any("waits" in note.text for note in notes)
    assert summary["agents"]["c"]["dropped"] and summary["agents"]["c"]["weights_sha256"] is None
    replayed = {**fields, "participation": {"attendance": rounds_of(summary)}}
    expected, _ = weights(replayed)
    assert {name: summary["agents"][name]["weights_sha256"] for name in "ab"} == {name: expected[name] for name in "ab"}


def test_who_comes_at_the_end_is_measured_as_it_began(tmp_path):
    fields = apart(quorum=2)
    spec, room = met(tmp_path, fields)
    east = room.members["east"]
    east.gone = True

    def watch(event):
        if isinstance(event, RoundFinished) and event.round == 3:
            east.back()

    summary = apart_run(spec, room, tmp_path, watch)
    assert rounds_of(summary) == [["north", "south"]] * 3 and same_as_replayed(summary, fields)
    assert summary["agents"]["c"]["updates"] == 0 and "dropped" not in summary["agents"]["c"]


def test_a_run_that_stops_before_all_have_come_goes_on(tmp_path):
    """The coordinator begins anew, with a checkpoint in which there is nothing of who is there by then."""
    fields = apart(quorum=2)
    spec, room = met(tmp_path, fields)
    room.members["east"].gone = True

    def stop(event):
        if isinstance(event, RoundFinished) and event.round == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        apart_run(spec, room, tmp_path, stop)
    (root,) = (tmp_path / "runs").glob("*/*")
    for link in room.members.values():
        link.back()
    backend = PartiesBackend(room)
    summary, _, _ = run_once(Request(spec, hosted=backend, resume=root, report=False), session=hosted(backend))
    assert rounds_of(summary) == [["north", "south"], [*PARTIES], [*PARTIES]]
    assert same_as_replayed(summary, fields)


def counted(name, **more):
    made = {who: {"agents": agents, "data": "digits", "samples": 5} for who, agents in PARTIES.items()}
    return {**apart(), "streams": {}, "parties": {**made, name: {"agents": PARTIES[name], "data": "digits", **more}}}


def taught(frozen):
    flow = {"from": "t", "to": "a", "objective": "kl", "stream": "transfer"}
    return {**apart(), "agents": {**apart()["agents"], "t": {**FEDAVG["agents"]["a"], **frozen}}, "flows": [flow]}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (apart(), ""),
        ({**FEDAVG, "participation": {}}, ""),
        (counted("east", samples=5), ""),
        (counted("east"), "`samples` is not said of east"),
        (taught({"update": "frozen", "init_of": None}), "t -> a is sent before the first round"),
        (
            repeated({"train": ["a", "b", "c"], "epochs": 1}, {"repeat": 3, "do": LINES}),
            "something else than rounds",
        ),
    ],
)  # fmt: skip
def test_why_all_must_have_come_first(fields, why):
    found = awaited(make_plan(parse(fields), registry()))
    assert why in found and bool(why) == bool(found)
