"""Meshes whose parties have a privacy budget: what is refused, what is charged, and what nobody is told."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from test_gatekeeper import Room, hosted, one_at_a_time

from kdmesh.backends.parties import PartiesBackend
from kdmesh.backends.wire import unpack
from kdmesh.engine.accounts import account, create, own
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.budgets import mechanism
from kdmesh.graph.digests import of_run
from kdmesh.graph.planner import make_plan
from kdmesh.parties.member import Member
from kdmesh.plugins import registry
from kdmesh.privacy import keys, ledger
from kdmesh.privacy.account import PartyAccount
from kdmesh.spec.read import parse

BUDGET = {"epsilon": 8, "delta": 1e-5}
PATE = {
    "name": "pate",
    "data": {"dataset": "digits", "transfer": 60, "stratify": False},
    "streams": {"mine": {"of": "train", "shards": {"by": "iid", "of": ["t[*]"]}, "private": True}},
    "agents": {"t": {"model": {"mlp": {"hidden": [8]}}, "count": 6}, "student": {"model": {"mlp": {"hidden": [16]}}}},
    "parties": {"clinic": {"agents": ["t[*]"], "privacy": BUDGET}},
    "consensus": {"counted": {"rule": {"gnmax": {"sigma": 8}}}},
    "flows": [
        {"from": "labels", "to": "t[*]", "objective": "ce", "stream": "mine"},
        {"from": "t[*]", "to": "counted", "stream": "transfer"},
        {"from": "counted", "to": "student", "objective": {"kl": {"temperature": 1}}},
    ],
    "train": {"epochs": 2, "batch_size": 32},
}
PROBABILITIES = {
    **PATE,
    "consensus": {"counted": {"rule": {"gaussian_probabilities": {"sigma": 8}}}},
}


def changed(path, value=None, fields=PATE):
    """The mesh with one setting another; of no value, without it."""
    made = copy.deepcopy(fields)
    *outer, last = path
    at = made
    for key in outer:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return made


def flowing(*flows, fields=PATE):
    made = copy.deepcopy(fields)
    made["flows"] += flows
    return made


def planned(fields):
    return make_plan(parse(fields), registry())


@pytest.fixture
def privacy(tmp_path):
    """Accounts of all parties of the mesh."""
    create(planned(PATE), tmp_path / "privacy")
    return tmp_path / "privacy"


def ran(fields, privacy, **more):
    summary, _, _ = run_once(Request(parse(fields), "inline", privacy=privacy, **more))
    return summary


def sha(summary):
    return summary["agents"]["student"]["weights_sha256"]


CONFIDENT = {"confident_gnmax": {"threshold": 3, "sigma1": 8, "sigma2": 8}}


@pytest.mark.parametrize(
    ("fields", "where", "said"),
    [
        (changed(["parties", "clinic", "privacy", "epsilon"], 0), "privacy.epsilon", "nothing may be answered"),
        (changed(["parties", "clinic", "privacy", "delta"], 1), "privacy.delta", "keeps no budget"),
        (changed(["consensus", "counted", "rule"], {"gnmax": {"sigma": 0}}), "gnmax.sigma", "greater than 0"),
        (changed(["consensus", "counted", "rule"], {"gnmax": {"sigma": 1e-9}}), "gnmax.sigma", "a number from"),
        (changed(["consensus", "counted", "rule"], "vote"), "flows.2", "without noise"),
        (changed(["consensus", "counted", "rule"], "mean"), "flows.2", "without noise"),
        (changed(["parties", "clinic", "privacy"]), "consensus.counted.rule", "clinic has no `privacy`"),
        (changed(["parties"]), "consensus.counted.rule", "of no party"),
        (changed(["parties", "clinic", "privacy", "adjacency"], "add_remove"), "privacy.adjacency", "is told to all"),
        (changed(["parties", "clinic", "privacy", "unit"], "party"), "privacy.unit", "took part"),
        (changed(["parties"], {"clinic": PATE["parties"]["clinic"] | {"agents": ["t[0]"]}}), "consensus.counted",
         "would meet at coordinator"),
        (changed(["train", "early_stopping"], {"patience": 2}), "train.early_stopping", "stay with clinic"),
        (changed(["train", "keep_best"], {"metric": "accuracy"}), "train.keep_best", "stay with clinic"),
        (changed(["flows", 1, "refresh"], "4 steps"), "consensus.counted", "each time costs"),
        (changed(["consensus", "counted", "include_self"], False), "counted.include_self", "no effect"),
        (flowing({"from": "t[0]", "to": "student", "objective": "kl", "stream": "transfer"}), "flows.3",
         "logits of t[0] on 'transfer' would leave clinic"),
        (flowing({"from": "t[0]", "to": "student", "objective": "hint", "signal": "hidden", "tap": "layers.0",
                  "stream": "transfer"}), "flows.3", "without noise"),
        (flowing({"from": "t[0]", "to": "student", "as": "input", "stream": "transfer", "refresh": "once"}), "flows.3",
         ""),
        (flowing({"from": "t[0]", "to": "student", "as": "weights"}), "flows.3", "would leave its party"),
        (flowing({"from": "counted", "to": "t[0]", "objective": "kl", "stream": "transfer"}), "consensus.counted",
         "to tell itself"),
    ],
)  # fmt: skip
def test_a_path_without_noise_is_refused_by_the_plan(fields, where, said):
    with pytest.raises(MeshError) as error:
        planned(fields)
    assert error.value.where.endswith(where), error.value.where
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("fields", "where", "said"),
    [
        (flowing({"from": "t[0]", "to": "t[1]", "objective": "kl", "stream": "transfer"}), "consensus.counted",
         "through t[0]"),
        (changed(["streams", "mine"], {"of": "train", "private": True}), "consensus.counted", "reach both"),
        (changed(["streams", "mine", "shards", "by"], "dirichlet"), "streams.mine.shards.by", "dealt by what they are"),
        (changed(["streams", "mine", "only"], [1, 2, 3]), "streams.mine.only", "counts on places"),
        (changed(["data", "stratify"], True), "data.stratify", "another class"),
        (changed(["streams", "mine", "private"]), "parties.clinic.privacy", "protects nothing"),
        (changed(["consensus", "counted", "rule"], {"gnmax": {"sigma": 2}}), "privacy.epsilon",
         "counted: 1 x 60) cost epsilon"),
        (changed(["parties", "clinic", "privacy", "epsilon"], 0.5), "privacy.epsilon", "more than the 0.5"),
    ],
)  # fmt: skip
def test_an_account_that_would_not_hold_is_refused_with_the_data(fields, where, said):
    with pytest.raises(MeshError) as error:
        examine(planned(fields))
    assert error.value.where.endswith(where), error.value.where
    assert said in str(error.value)


def test_votes_that_may_all_be_answered_beyond_the_budget_are_noted():
    tight = changed(
        ["parties", "clinic", "privacy", "epsilon"], 6.5, changed(["consensus", "counted", "rule"], CONFIDENT)
    )
    found = examine(planned(tight))
    assert any("samples go without an answer" in note for note in found.notes)


def test_a_teacher_with_weights_of_a_file_has_no_vote(privacy, tmp_path):
    """Nobody knows what they have learned; of a row of probabilities nothing need be known."""
    _, folder, _ = run_once(Request(parse(PATE), "inline", privacy=privacy, out=tmp_path / "runs"))
    weights = str(folder.root / "agents" / "t[0]" / "model.safetensors")
    with pytest.raises(MeshError, match="may have learned of any sample") as error:
        examine(planned(changed(["agents", "t", "weights"], weights)))
    assert error.value.where == "agents.t[0].weights"
    examine(planned(changed(["agents", "t", "weights"], weights, PROBABILITIES)))


def test_a_run_charges_the_ledger_and_says_what_was_spent(privacy):
    summary = ran(PATE, privacy)
    (line,) = ledger.read(privacy / "clinic" / "ledger").lines
    assert line.charge.mechanism == "gnmax" and line.charge.sigma == 8 and len(line.charge.queries) == 60
    told = summary["privacy"]["clinic"]
    assert told["answers"] == 60 and told["unit"] == "sample" and 0 < told["exact"] < told["rdp"] < 8
    assert told["mechanisms"][0]["noise_by"] == "clinic"
    assert summary["agents"]["student"]["metrics"]["test"]["accuracy"] > 0


def test_a_run_that_is_made_again_costs_nothing_and_has_the_same_bits(privacy):
    first, again = ran(PATE, privacy), ran(PATE, privacy)
    assert first["privacy"] == again["privacy"]
    assert sha(first) == sha(again)


def test_another_secret_is_another_noise(privacy, tmp_path):
    create(planned(PATE), tmp_path / "other")
    one, two = ran(PATE, privacy), ran(PATE, tmp_path / "other")
    assert sha(one) != sha(two)
    assert one["privacy"]["clinic"]["rdp"] == two["privacy"]["clinic"]["rdp"]


def test_another_seed_pays_anew_until_the_budget_is_spent(privacy):
    """Then rows go without an answer: as many as the budget had no room for, and no more."""
    first = ran(PATE, privacy)
    second = ran({**PATE, "seed": 1}, privacy)
    assert second["privacy"]["clinic"]["answers"] > first["privacy"]["clinic"]["answers"] == 60
    third = ran({**PATE, "seed": 2}, privacy)
    said = "the budget of clinic has no room for one more answer of counted (gnmax)"
    assert not any(said in note for note in first["notes"]) and any(said in note for note in third["notes"])
    assert third["privacy"]["clinic"]["answers"] == second["privacy"]["clinic"]["answers"] < 120
    assert third["privacy"]["clinic"]["rdp"] <= 8 and third["privacy"]["clinic"]["mechanisms"][0]["more"] == 0
    assert sha(ran({**PATE, "seed": 1}, privacy)) == sha(second)  # those of its rows that were answered still are


@pytest.mark.parametrize(
    "rule", [CONFIDENT, {"gaussian_probabilities": {"sigma": 8}}], ids=lambda rule: next(iter(rule))
)
def test_other_rules_answer_on_the_account(privacy, rule):
    summary = ran(changed(["consensus", "counted", "rule"], rule), privacy)
    names = {one["mechanism"] for one in summary["privacy"]["clinic"]["mechanisms"]}
    assert names <= {"agreement", "gnmax"} if "confident_gnmax" in rule else names == {"gaussian_probabilities"}


def test_figures_of_a_party_with_a_budget_stay_with_it(privacy, tmp_path):
    said = []
    summary = ran(PATE, privacy, listeners=(said.append,), out=tmp_path / "runs")
    teacher = summary["agents"]["t[0]"]
    assert teacher["metrics"] == {"validation": {}, "test": {}} and not teacher["weights_sha256"]
    assert teacher["best_teacher"] is None and summary["agents"]["student"]["best_teacher"] is None
    assert not summary["consensus"]["counted"]["metrics"]["test"]
    for event in said:
        assert getattr(event, "agent", "student") == "student", event
        assert not {*getattr(event, "losses", ())} - {"student"}, event
    lines = (privacy / "clinic" / "figures.jsonl").read_text().splitlines()
    assert {json.loads(line)["agent"] for line in lines} == {f"t[{number}]" for number in range(6)}


def test_there_is_no_run_without_the_account(privacy, tmp_path):
    with pytest.raises(MeshError, match="nobody said where its secret and its ledger are"):
        ran(PATE, None)
    with pytest.raises(MeshError, match="there is no secret of clinic here"):
        ran(PATE, tmp_path)
    with pytest.raises(MeshError, match="no party with a privacy budget here"):
        ran(changed(["consensus", "counted", "rule"], "vote", changed(["parties", "clinic", "privacy"])), privacy)
    with pytest.raises(MeshError, match="secrets of parties stand in none"):
        ran(PATE, privacy, out=tmp_path)
    (privacy / "clinic" / "ledger").unlink()
    with pytest.raises(MeshError, match="there is no ledger of clinic here"):
        ran(PATE, privacy)


def test_a_ledger_of_another_budget_secret_or_past_is_refused(privacy, tmp_path):
    with pytest.raises(MeshError, match="was begun with epsilon 8"):
        ran(changed(["parties", "clinic", "privacy", "epsilon"], 80), privacy)
    shutil.copytree(privacy, tmp_path / "before")
    ran(PATE, privacy)
    shutil.copy(tmp_path / "before" / "clinic" / "ledger", privacy / "clinic" / "ledger")
    with pytest.raises(MeshError, match="rolled back"):
        ran({**PATE, "seed": 1}, privacy)
    create(planned(PATE), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "clinic" / "secret", tmp_path / "before" / "clinic" / "secret")
    with pytest.raises(MeshError, match="a ledger counts for one key"):
        ran(PATE, tmp_path / "before")


def test_an_account_is_made_once(privacy):
    with pytest.raises(MeshError, match="there is a secret already"):
        create(planned(PATE), privacy)
    with pytest.raises(MeshError, match="'north' is no party with a privacy budget"):
        create(planned(PATE), privacy, "north")


def test_the_same_question_of_other_values_is_refused(privacy):
    """What a party has answered under a name it never answers of other samples: the two could be subtracted."""
    ran(PATE, privacy)
    other = account(planned(PATE), "clinic", privacy / "clinic")
    plan = planned(PATE)
    (line,) = ledger.read(privacy / "clinic" / "ledger").lines
    query = next(iter(line.charge.queries))
    with pytest.raises(MeshError, match="was answered of other values"):
        other.answer(mechanism(plan, "counted"), of_run(plan), [query], np.full((1, 10), 7))


def test_one_party_s_own_account_is_its_folder(privacy):
    plan = planned(PATE)
    assert {*own(plan, "clinic", privacy / "clinic")} == {"clinic"}
    with pytest.raises(MeshError, match="there is no secret"):
        own(plan, "clinic", privacy)


def met(privacy, tmp_path, fields=PATE, out=None):
    """A run with the party behind a link: the summary, and all that was sent."""
    spec = parse(fields)
    room = Room({"clinic": Member(spec, "clinic", tmp_path / "party", privacy=privacy / "clinic")})
    one_at_a_time(room)
    backend = PartiesBackend(room)
    summary, _, _ = run_once(Request(spec, hosted=backend, out=out), session=hosted(backend))
    return summary, room.members["clinic"].sent


ROUNDS = {
    **PATE,
    "consensus": {"counted": {"rule": {"gnmax": {"sigma": 14}}}},
    "flows": [
        PATE["flows"][0],
        {**PATE["flows"][1], "refresh": "round"},
        PATE["flows"][2],
    ],
    "program": [
        {"of": ["t[*]", "student"], "repeat": 3,
         "do": [{"train": ["t[*]"], "epochs": 1}, {"publish": ["t[*]"]}, {"train": ["student"], "epochs": 1}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("fields", [PATE, ROUNDS], ids=["once", "rounds"])
def test_parties_apart_have_the_bits_of_a_simulation_with_their_keys(privacy, tmp_path, fields):
    shutil.copytree(privacy, tmp_path / "apart")
    simulated = ran(fields, privacy)
    apart, _ = met(tmp_path / "apart", tmp_path, fields)
    assert sha(apart) == sha(simulated)
    told = {**apart["privacy"]["clinic"], "head": ""}
    assert told == {**simulated["privacy"]["clinic"], "head": ""} and told["answers"] == (60 if fields is PATE else 180)


def test_a_coordinator_is_told_no_loss_figure_decision_or_hash(privacy, tmp_path):
    summary, sent = met(privacy, tmp_path, out=tmp_path / "runs")
    asked = {}
    for message, answer in zip(sent[::2], sent[1::2], strict=True):
        about, value = unpack(message), unpack(answer).get("value")
        if "method" in about:
            asked.setdefault(about["method"], []).append(value)
    assert all(value == ({}, [], []) for value in asked["run"]) and len(asked["run"]) > 1
    assert all(value == {} for value in asked["evaluate"]) and len(asked["evaluate"]) >= 12
    assert asked["answers"] == [{}]
    assert {facts["weights_sha256"] for facts in asked["describe"][0].values()} == {""}
    assert all(proof == {} for _, proof in asked["save_agent"])
    parts = [path.read_bytes() for path in (tmp_path / "party" / "parts").iterdir()]
    held = b"".join(sent) + b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert parts and not any(hashlib.sha256(part).hexdigest().encode() in held for part in parts)
    assert summary["agents"]["student"]["metrics"]["test"]


def test_noise_cannot_be_subtracted_with_what_the_coordinator_holds(privacy, tmp_path, monkeypatch):
    """Even by one who knows all votes: of everything that could be a secret none makes the answers of them."""
    answered, answer = [], PartyAccount.answer

    def heard(self, how, mesh, queries, values):
        found = answer(self, how, mesh, queries, values)
        answered.append((how, mesh, queries, values, found[1]))
        return found

    monkeypatch.setattr(PartyAccount, "answer", heard)
    _, sent = met(privacy, tmp_path, out=tmp_path / "runs")
    ((how, mesh, queries, values, found),) = answered
    held = [*sent, *(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())]
    held.append(json.dumps(PATE).encode())
    true = (privacy / "clinic" / "secret").read_bytes()
    guesses = {bytes(32), *(bytes.fromhex(one.decode()) for text in held for one in re.findall(b"[0-9a-f]{64}", text))}
    guesses |= {text[at : at + 32] for text in held for at in range(0, len(text) - 32, 997)}
    assert len(guesses) > 20 and true not in guesses
    assert not any(form in text for text in held for form in (true, true.hex().encode()))

    def subtracts(content):
        """Whether a secret makes the answers of the votes."""
        secret = keys.Secret(content)
        rows = [row.astype("<i8").tobytes() for row in how.steps(values)]
        tags = [secret.tag(row, mesh, how.purpose, one) for one, row in zip(queries, rows, strict=True)]
        pairs = list(zip(queries, tags, strict=True))
        noise = secret.noise(how.sigma, how.size(values), mesh, how.purpose, pairs)
        return (how.release(values, noise) == found).all()

    assert subtracts(true)
    assert not any(subtracts(guess) for guess in [*guesses][:300])


def test_rows_are_asked_as_often_as_they_are_published(privacy):
    summary = ran(ROUNDS, privacy)
    lines = ledger.read(privacy / "clinic" / "ledger").lines
    assert [len(line.charge.queries) for line in lines] == [60, 60, 60] and summary["privacy"]["clinic"]["charges"] == 3
    assert np.unique([one for line in lines for one in line.charge.queries]).size == 180


def test_a_run_that_was_killed_as_it_answered_pays_nothing_twice(privacy, tmp_path, monkeypatch):
    """It had charged, and told nobody: it goes on to the bits of an undisturbed run, and to its account."""
    shutil.copytree(privacy, tmp_path / "whole")
    expected = ran(ROUNDS, tmp_path / "whole")
    answer, calls = PartyAccount.answer, []

    def killed(self, *asked):
        found = answer(self, *asked)
        calls.append(found)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(PartyAccount, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        ran(ROUNDS, privacy, out=tmp_path / "runs")
    monkeypatch.undo()
    assert len(ledger.read(privacy / "clinic" / "ledger").lines) == 2
    (folder,) = (tmp_path / "runs" / "pate").iterdir()
    again = ran(ROUNDS, privacy, resume=folder)
    assert sha(again) == sha(expected)
    assert again["privacy"]["clinic"]["answers"] == expected["privacy"]["clinic"]["answers"] == 180
    assert len(ledger.read(privacy / "clinic" / "ledger").lines) == 3


def test_the_command_makes_accounts_and_a_run_uses_them(tmp_path, capsys, monkeypatch):
    from kdmesh.cli import main

    mesh = tmp_path / "mesh.json"
    mesh.write_text(json.dumps(PATE))
    monkeypatch.chdir(tmp_path)
    assert main(["ledger", "new", str(mesh), "--privacy", "keys"]) == 0
    assert "clinic: one sample (replace), epsilon 8, delta 1e-05" in capsys.readouterr().out
    assert (tmp_path / "keys" / "clinic").stat().st_mode & 0o077 == 0
    assert main(["ledger", "new", str(mesh), "--privacy", "keys"]) == 2
    assert "there is a secret already" in capsys.readouterr().err
    assert main(["run", str(mesh), "--out", "runs", "--backend", "inline", "--no-report"]) == 2
    assert "kdmesh ledger new" in capsys.readouterr().err
    assert main(["run", str(mesh), "--out", "runs", "--backend", "inline", "--no-report", "--privacy", "keys"]) == 0
    capsys.readouterr()
    assert main(["ledger", "show", "keys/clinic/ledger"]) == 0
    assert "60" in capsys.readouterr().out
    assert not [
        path for path in (tmp_path / "runs").rglob("*") if path.is_file() and b"keys/clinic" in path.read_bytes()
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_plan_prints_the_account_to_come(width):
    from kdmesh.report.plan_text import plan_text

    text = plan_text(planned(PATE), width=width)
    assert "Answers with noise, on an account" in text and max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    assert "only it has" in words and "gnmax" in words and "answers with noise" in words


def test_the_check_says_what_all_answers_cost():
    from kdmesh.privacy.accounting import Gaussian, epsilons

    both = epsilons([Gaussian(2**0.5, 14.0, 180)], 1e-5)
    (told,) = [mark for mark in examine(planned(ROUNDS)).marks if "noise of its own" in mark]
    assert "counted (gnmax): 3 x 60 samples, sigma 14 at sensitivity 1.4142" in told
    assert f"epsilon {both['rdp']:.4f} by Renyi divergences, {both['exact']:.4f} exactly" in told


@pytest.mark.parametrize(
    "command",
    [("compare", "mesh.json", "--variant", "train.epochs=3"), ("sweep", "mesh.json", "--over", "train.epochs=1,2")],
)
def test_many_trials_are_no_way_to_spend_a_budget(tmp_path, capsys, monkeypatch, command):
    from kdmesh.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mesh.json").write_text(json.dumps(PATE))
    assert main([*command, "--out", "runs"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "parties.clinic.privacy: each trial would be charged to the budget of clinic" in said
    assert "kdmesh run FILE --privacy FOLDER" in said and not (tmp_path / "runs").exists()
