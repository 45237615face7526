"""What parties have released, combined further: no more is charged, and nothing else of theirs leaves them."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
from test_gatekeeper import Room, hosted, one_at_a_time

from kdmesh.backends.parties import PartiesBackend
from kdmesh.engine.accounts import create
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.disclosed import NOISY, crossings
from kdmesh.graph.planner import make_plan
from kdmesh.parties.member import Member
from kdmesh.plugins import registry
from kdmesh.privacy import ledger
from kdmesh.spec.read import parse

BUDGET = {"epsilon": 8, "delta": 1e-5}
ROUNDS = 3
FEDMD = {
    "name": "fedmd-with-noise",
    "data": {"dataset": "digits", "train": 300, "transfer": 60, "validation": 40, "test": 60, "stratify": False},
    "streams": {"mine": {"of": "train", "shards": {"of": ["a", "b"]}, "private": True}},
    "agents": {
        "a": {"model": {"mlp": {"hidden": [16]}}},
        "b": {"model": {"mlp": {"hidden": [12]}}},
        "server": {"model": {"mlp": {"hidden": [16]}}},
    },
    "parties": {"north": {"agents": "a", "privacy": BUDGET}, "south": {"agents": "b", "privacy": BUDGET}},
    "consensus": {
        "of_a": {"rule": {"gaussian_probabilities": {"sigma": 14}}},
        "of_b": {"rule": {"gaussian_probabilities": {"sigma": 14}}},
        "all": {"rule": "mean"},
    },
    "flows": [
        {"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "mine", "lesson": "revisit"},
        {"from": "a", "to": "of_a", "stream": "transfer", "refresh": "round"},
        {"from": "b", "to": "of_b", "stream": "transfer", "refresh": "round"},
        {"from": ["of_a", "of_b"], "to": "all", "stream": "transfer"},
        {"from": "all", "to": ["a", "b", "server"], "objective": {"kl": {"temperature": 1}}, "lesson": "digest"},
    ],
    "program": [
        {
            "of": ["a", "b", "server"],
            "repeat": ROUNDS,
            "do": [
                {"lesson": "revisit", "epochs": 2},
                {"publish": ["a", "b"]},
                {"lesson": "digest", "epochs": 1},
            ],
        }
    ],
    "train": {"batch_size": 20},
}


def flows(*more, fields=FEDMD, without=()):
    made = copy.deepcopy(fields)
    made["flows"] = [one for number, one in enumerate(made["flows"]) if number not in without] + [*more]
    return made


def ruled(name, rule, fields=FEDMD):
    made = copy.deepcopy(fields)
    made["consensus"][name] = {"rule": rule}
    return made


def planned(fields):
    return make_plan(parse(fields), registry())


def relayed():
    """South combines what north releases with what its own agent says; it has no budget."""
    made = flows(
        {"from": "of_a", "to": "both", "stream": "transfer"},
        {"from": "b", "to": "both", "stream": "transfer", "refresh": "round"},
        {"from": "both", "to": "server", "objective": {"kl": {"temperature": 1}}, "lesson": "digest"},
        {"from": "both", "to": "b", "objective": {"kl": {"temperature": 1}}, "lesson": "digest"},
        without=(2, 3, 4),
    )
    made["consensus"] = {"of_a": made["consensus"]["of_a"], "both": {"rule": "mean"}}
    del made["parties"]["south"]["privacy"]
    return made


def passed_on():
    """Of one party alone, sharpened, for a student elsewhere."""
    made = ruled("all", {"era": {"sharpening": 0.5}}, relayed())
    made["consensus"] = {name: made["consensus"][name] for name in ("of_a", "all")}
    made["flows"] = [
        *made["flows"][:2],
        {"from": "of_a", "to": "all", "stream": "transfer"},
        {"from": "all", "to": ["server", "b"], "objective": {"kl": {"temperature": 1}}, "lesson": "digest"},
    ]
    return made


def inside():
    """South alone reads what it makes of what north releases, and of what it says itself."""
    made = relayed()
    made["flows"] = [one for one in made["flows"] if one["to"] != "server"]
    del made["agents"]["server"]
    made["program"] = [
        {
            "of": ["a", "b"],
            "repeat": ROUNDS,
            "do": [{"lesson": "revisit"}, {"publish": ["a", "b"]}, {"lesson": "digest"}],
        }
    ]
    return made


MESHES = {
    "mean": FEDMD,
    "era": ruled("all", {"era": {"sharpening": 0.5}}),
    "with a memory": ruled("all", "expguard"),
    "passed on": passed_on(),
    "relayed": relayed(),
    "inside": inside(),
}


def ran(fields, privacy, session=None, **more):
    summary, _, _ = run_once(Request(parse(fields), privacy=privacy, backend="inline", **more), session=session)
    return summary


def bits(summary, but=()):
    return {name: one["weights_sha256"] for name, one in summary["agents"].items() if name not in but}


def apart(fields, tmp_path):
    spec = parse(fields)
    keys = {name: tmp_path / "apart" / name if one.privacy else None for name, one in spec.parties.items()}
    room = Room({name: Member(spec, name, tmp_path / name, privacy=keys[name]) for name in spec.parties})
    one_at_a_time(room)
    backend = PartiesBackend(room)
    summary, _, _ = run_once(Request(spec, hosted=backend), session=hosted(backend))
    return summary, room


@pytest.mark.parametrize("name", MESHES)
def test_parties_apart_have_the_bits_of_a_simulation(tmp_path, name):
    fields = MESHES[name]
    create(planned(fields), tmp_path / "keys")
    shutil.copytree(tmp_path / "keys", tmp_path / "apart")
    expected = ran(fields, tmp_path / "keys")
    summary, room = apart(fields, tmp_path)
    hidden = {agent for party in planned(fields).withholding for agent in parse(fields).parties[party].agents}
    told = bits(expected, hidden)
    assert told == bits(summary, hidden) and all(told.values()) and told
    for party, spent in expected["privacy"].items():
        assert spent["answers"] == 60 * ROUNDS and spent["charges"] == ROUNDS  # and nothing for what is made of these
        assert {**summary["privacy"][party], "head": ""} == {**spent, "head": ""}
    for party in planned(fields).withholding:
        assert left(room, party) == {f"of_{parse(fields).parties[party].agents[0]}"}


def left(room, party):
    """Of whom a party has told anything that has rows of samples."""
    lines = (room.members[party].member.folder / "left.jsonl").read_text().splitlines()
    return {json.loads(line)["source"] for line in lines}


@pytest.mark.ray
def test_parties_as_actors_have_the_bits_of_a_simulation(tmp_path, ray_session):
    create(planned(FEDMD), tmp_path / "keys")
    shutil.copytree(tmp_path / "keys", tmp_path / "actors")
    expected = ran(FEDMD, tmp_path / "keys")
    summary, _, _ = run_once(Request(parse(FEDMD), privacy=tmp_path / "actors"), session=ray_session)
    assert bits(summary)["server"] == bits(expected)["server"] != ""
    for party, spent in expected["privacy"].items():
        assert {**summary["privacy"][party], "head": ""} == {**spent, "head": ""}


def test_what_crosses_is_released_or_made_of_that():
    found = {
        (one.source, one.target, one.what, one.of) for one in crossings(planned(FEDMD)) if one.stream == "transfer"
    }
    assert found == {
        ("north", "coordinator", NOISY, "of_a"), ("south", "coordinator", NOISY, "of_b"),
        ("coordinator", "north", NOISY, "all"), ("coordinator", "south", NOISY, "all"),
    }  # fmt: skip
    found = {(one.source, one.target, one.what, one.of) for one in crossings(planned(inside()))}
    assert ("north", "south", NOISY, "of_a") in found and not any(one[1] == "north" for one in found)


def test_agents_learn_what_others_have_released(tmp_path):
    """With a budget that needs little noise."""
    made = copy.deepcopy(FEDMD)
    for party, classes in (("north", "a"), ("south", "b")):
        made["parties"][party] = {"agents": classes, "privacy": {"epsilon": 1e6, "delta": 1e-5}}
    made["consensus"]["of_a"] = made["consensus"]["of_b"] = {"rule": {"gaussian_probabilities": {"sigma": 0.02}}}
    made["program"][0]["do"][2]["epochs"] = 10
    made["train"] |= {"optimizer": {"adamw": {"lr": 1e-2}}}
    create(planned(made), tmp_path / "keys")
    summary = ran(made, tmp_path / "keys")
    assert summary["agents"]["server"]["metrics"]["test"]["accuracy"] > 0.4  # of ten classes, without a label
    assert not summary["consensus"]["all"]["metrics"]["test"]  # which would be of answers without noise


@pytest.mark.parametrize(
    ("fields", "where", "said"),
    [
        (flows({"from": ["a", "b"], "to": "all", "stream": "transfer", "refresh": "round"}), "flows.5",
         "logits of a on 'transfer' would leave north"),
        (flows({"from": "a", "to": "all", "stream": "transfer", "refresh": "round"}), "consensus.of_a",
         "all reads it at north"),
        (flows({"from": "a", "to": "server", "objective": "kl", "stream": "transfer", "refresh": "round"}), "flows.5",
         "logits of a on 'transfer' would leave north"),
        (flows({"from": "all", "to": "a", "objective": {"kl": {"temperature": 1}}, "lesson": "digest"}, without=(4,)),
         "consensus.of_a", "all reads it at north"),
        (flows({"from": "of_a", "to": "a", "objective": {"kl": {"temperature": 1}}, "lesson": "digest"}),
         "consensus.of_a", "a reads it at north"),
        (ruled("all", {"gaussian_probabilities": {"sigma": 14}}), "consensus.all", "of_a says what several do"),
        (ruled("all", {"drop_worst": {}}), "flows.3", "errors are those of agents"),
        ({**FEDMD, "consensus": FEDMD["consensus"] | {"all": {"rule": "mean", "history": "last"}}},
         "consensus.all.history", "without noise"),
        ({**FEDMD, "program": [{**FEDMD["program"][0], "until": {"agreement": 0.9, "of": "all"}}]}, "program",
         "how far agents of north agree"),
    ],
)  # fmt: skip
def test_a_roundabout_way_is_refused(fields, where, said):
    if len(fields["flows"]) < 6 and "server" in fields["agents"] and where == "consensus.of_a":
        fields = copy.deepcopy(fields)
        del fields["agents"]["server"]
        fields["program"][0]["of"] = ["a", "b"]
    with pytest.raises(MeshError) as error:
        planned(fields)
    assert error.value.where.startswith(where), error.value.where
    assert said in str(error.value)


def test_a_publication_to_what_combines_it_further_counts(tmp_path):
    """A line that publishes to a consensus reaches what is released on the way to it, and is charged."""
    made = copy.deepcopy(FEDMD)
    made["program"][0]["do"][1] = {"publish": ["a", "b"], "to": "all"}
    (north, south) = [mark for mark in examine(planned(made)).marks if "noise of its own" in mark]
    assert "3 x 60 samples" in north and "3 x 60 samples" in south
    create(planned(made), tmp_path / "keys")
    summary = ran(made, tmp_path / "keys")
    assert [spent["answers"] for spent in summary["privacy"].values()] == [180, 180]


def test_who_is_away_has_released_nothing_in_that_round(tmp_path):
    """With `forget` nothing of it counts, its old answers neither; it pays for the rounds that it is in."""
    made = {**FEDMD, "participation": {"attendance": [["north", "south"], ["north"], ["south"]]}}
    create(planned(made), tmp_path / "keys")
    shutil.copytree(tmp_path / "keys", tmp_path / "kept")
    summary = ran(made, tmp_path / "keys")
    assert [spent["answers"] for spent in summary["privacy"].values()] == [120, 120]
    kept = ran({**made, "participation": {**made["participation"], "stale": "keep"}}, tmp_path / "kept")
    assert bits(kept)["server"] != bits(summary)["server"]


def test_the_same_parties_in_each_round_are_asked_the_same(tmp_path):
    """Whoever drew them: so a simulation of a run's rounds has its bits and charges, and other rounds have others."""
    drawn = {**FEDMD, "participation": {"fraction": 0.5}}
    create(planned(drawn), tmp_path / "keys")
    for name in ("replayed", "others"):
        shutil.copytree(tmp_path / "keys", tmp_path / name)
    summary = ran(drawn, tmp_path / "keys")
    who = [one["attended"] for one in summary["rounds"]]
    assert [len(names) for names in who] == [1, 1, 1] and len({*map(tuple, who)}) == 2
    replayed = ran({**FEDMD, "participation": {"attendance": who}}, tmp_path / "replayed")
    assert bits(replayed) == bits(summary)

    def asked(which):
        return [{*line.charge.queries.items()} for name in FEDMD["parties"]
                for line in ledger.read(tmp_path / which / name / "ledger").lines]  # fmt: skip

    assert asked("replayed") == asked("keys")
    ran({**FEDMD, "participation": {"attendance": [["north", "south"], *who[1:]]}}, tmp_path / "others")
    assert not set.union(*asked("others")) & set.union(*asked("keys"))


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    from kdmesh.privacy.account import PartyAccount

    create(planned(FEDMD), tmp_path / "keys")
    shutil.copytree(tmp_path / "keys", tmp_path / "whole")
    expected = ran(FEDMD, tmp_path / "whole")
    answer, calls = PartyAccount.answer, []

    def killed(self, *asked):
        found = answer(self, *asked)
        calls.append(found)
        if len(calls) == 4:  # south's of the second round, which north has answered
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(PartyAccount, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        ran(FEDMD, tmp_path / "keys", out=tmp_path / "runs")
    monkeypatch.undo()
    (folder,) = (tmp_path / "runs" / FEDMD["name"]).iterdir()
    again = ran(FEDMD, tmp_path / "keys", resume=folder)
    assert bits(again) == bits(expected)
    assert [len(ledger.read(tmp_path / "keys" / name / "ledger").lines) for name in FEDMD["parties"]] == [3, 3]
