"""Teachers of one party on parts of what the party has for itself: dealt by place, the same in every process."""

from __future__ import annotations

import copy
import csv
import shutil

import pytest
import torch
from sklearn.datasets import load_digits
from test_gatekeeper import Room, hosted, one_at_a_time

from kdmesh.backends.parties import PartiesBackend
from kdmesh.engine.accounts import create
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.parties.member import Member
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

SHARDS = {"of": "own", "shards": {"by": "iid", "of": ["n[*]", "s[*]"]}}
BUDGET = {"epsilon": 8, "delta": 1e-5}


def files_of(folder):
    """Digits as CSV files: public ones, and those of two parties."""
    x, y = load_digits(return_X_y=True)
    for name, rows in (("public", range(300)), ("north", range(300, 700)), ("south", range(700, 1001))):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"p{number}" for number in range(64)), "digit"])
            writer.writerows([*x[row].astype(int), f"d{y[row]}"] for row in rows)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return files_of(tmp_path_factory.mktemp("own"))


def votes(folder):
    """Two parties, each of whose teachers vote; a student elsewhere learns of both."""
    data = {name: {"csv": {"path": str(folder / f"{name}.csv"), "label": "digit"}} for name in ("north", "south")}
    return {
        "name": "votes-of-own",
        "data": {"dataset": {"csv": {"path": str(folder / "public.csv"), "label": "digit"}}, "transfer": 60},
        "streams": {"mine": SHARDS},
        "agents": {
            "n": {"model": {"mlp": {"hidden": [8]}}, "count": 4},
            "s": {"model": {"mlp": {"hidden": [8]}}, "count": 3},
            "student": {"model": {"mlp": {"hidden": [16]}}},
        },
        "parties": {
            "north": {"agents": ["n[*]"], "data": data["north"], "privacy": BUDGET},
            "south": {"agents": ["s[*]"], "data": data["south"], "privacy": BUDGET},
        },
        "consensus": {"of_n": {"rule": {"gnmax": {"sigma": 8}}}, "of_s": {"rule": {"gnmax": {"sigma": 8}}}},
        "flows": [
            {"from": "labels", "to": ["n[*]", "s[*]"], "objective": "ce", "stream": "mine"},
            {"from": "n[*]", "to": "of_n", "stream": "transfer"},
            {"from": "s[*]", "to": "of_s", "stream": "transfer"},
            {"from": "of_n", "to": "student", "objective": {"kl": {"temperature": 1}}},
            {"from": "of_s", "to": "student", "objective": {"kl": {"temperature": 1}}},
        ],
        "train": {"epochs": 2, "batch_size": 32},
    }


def planned(fields):
    return make_plan(parse(fields), registry())


def test_each_party_deals_its_own_samples_to_its_teachers(files):
    found = examine(planned(votes(files)))
    own, mine = found.streams["own"], found.streams["mine"]
    assert mine.private and sorted(map(len, mine.shards.values())) == [100] * 6 + [101]
    for name, count in (("n", 4), ("s", 3)):
        parts = [mine.rows_for(f"{name}[{number}]") for number in range(count)]
        assert torch.cat(parts).sort().values.equal(own.rows_for(f"{name}[0]"))
    assert any("noise of its own" in mark for mark in found.marks)


def test_who_has_none_of_the_samples_deals_alike(files):
    plan = planned(votes(files))
    _, whole = Source().load(plan)
    _, part = Source(sizes={"south": 301}).load(plan)
    assert list(part["mine"].shards) == list(whole["mine"].shards)
    assert all(part["mine"].shards[name].equal(rows) for name, rows in whole["mine"].shards.items())


def test_a_sample_that_is_another_moves_no_other_teacher_s(files, tmp_path):
    """Dealt by place: with another label, and other values, at one place all shards are as they were."""
    shutil.copytree(files, tmp_path / "other")
    lines = (tmp_path / "other" / "north.csv").read_text().splitlines()
    lines[7] = ",".join(["9"] * 64 + ["d3"])
    (tmp_path / "other" / "north.csv").write_text("\n".join(lines))
    one, two = (examine(planned(votes(folder))) for folder in (files, tmp_path / "other"))
    assert not one.table.x.equal(two.table.x)
    assert all(two.streams["mine"].shards[name].equal(rows) for name, rows in one.streams["mine"].shards.items())


def test_a_size_before_the_parts_is_of_each_party_s(files):
    made = votes(files)
    made["streams"] = {"few": {"of": "own", "size": 0.5}, "mine": {**SHARDS, "of": "few"}}
    mine = examine(planned(made)).streams["mine"]
    assert [len(mine.rows_for(name)) for name in ("n[0]", "n[3]", "s[0]", "s[2]")] == [50, 50, 50, 50]


def changed(fields, **streams):
    return {**copy.deepcopy(fields), "streams": streams}


@pytest.mark.parametrize(
    ("streams", "where", "said"),
    [
        ({"mine": {"of": "own", "shards": {"by": "dirichlet", "of": ["n[*]", "s[*]"]}}}, "mine.shards.by", "alike"),
        ({"mine": {"of": "own", "shards": {"of": ["n[*]", "s[*]", "student"]}}}, "mine.shards.of", "of no party"),
        ({"few": SHARDS, "mine": {**SHARDS, "of": "few"}}, "mine.shards", "few is divided already"),
        ({"all": {"of": "own", "pooled": True}, "mine": {**SHARDS, "of": "all"}}, "mine.shards", "in one place"),
        ({"mine": {"of": "own", "shards": {"of": ["n[0]", "s[0]"]}}}, "mine.shards.of", "nothing of 'own' is divided"),
    ],
)
def test_other_divisions_of_own_samples_are_refused(files, streams, where, said):
    with pytest.raises(MeshError) as error:
        planned(changed(votes(files), **streams))
    assert error.value.where == f"streams.{where}" and said in str(error.value)


@pytest.mark.parametrize(
    ("flow", "where", "said"),
    [
        ({"from": "n[0]", "to": "n[1]", "objective": "kl", "stream": "mine", "refresh": "once"}, "flows.5", "away"),
        ({"from": "n[0]", "to": "n[1]", "objective": "kl", "stream": "transfer"}, "consensus.of_n", "through n[0]"),
        ({"from": "labels", "to": "n[0]", "objective": "ce", "stream": "own"}, "consensus.of_n", "move two votes"),
    ],
)
def test_teachers_of_whom_two_would_learn_of_one_sample_are_refused(files, flow, where, said):
    made = votes(files)
    made["flows"].append(flow)
    with pytest.raises(MeshError) as error:
        examine(planned(made))
    assert error.value.where == where and said in str(error.value)


def test_teachers_that_all_see_all_of_it_have_no_votes(files):
    made = votes(files)
    made["flows"][0]["stream"] = "own"
    made["streams"] = {}
    with pytest.raises(MeshError, match=r"samples of 'own' reach both n\[0\] and n\[1\]"):
        examine(planned(made))


def test_parties_apart_have_the_bits_of_a_simulation(files, tmp_path):
    spec = parse(votes(files))
    create(planned(votes(files)), tmp_path / "keys")
    shutil.copytree(tmp_path / "keys", tmp_path / "apart")
    expected, _, _ = run_once(Request(spec, "inline", privacy=tmp_path / "keys"))
    members = {}
    for name in ("north", "south"):  # whose file knows nothing of the other's samples
        own = votes(files)
        other = {"north": "south", "south": "north"}[name]
        own["parties"][other]["data"] = {"csv": {"path": "nowhere.csv", "label": "digit"}}
        members[name] = Member(parse(own), name, tmp_path / name, privacy=tmp_path / "apart" / name)
    room = Room(members)
    sizes = {name: member.hello()["samples"] for name, member in members.items()}
    assert sizes == {"north": 400, "south": 301}
    room.sizes = lambda: sizes
    one_at_a_time(room)
    backend = PartiesBackend(room)
    summary, _, _ = run_once(Request(spec, hosted=backend), session=hosted(backend))
    bits = [found["agents"]["student"]["weights_sha256"] for found in (expected, summary)]
    assert bits[0] == bits[1] != ""
    for name in ("north", "south"):
        assert {**summary["privacy"][name], "head": ""} == {**expected["privacy"][name], "head": ""}
        assert summary["privacy"][name]["answers"] == 60


@pytest.mark.ray
def test_parties_as_actors_have_the_bits_of_a_simulation(files, tmp_path, ray_session):
    spec = parse(votes(files))
    create(planned(votes(files)), tmp_path / "keys")
    expected, _, _ = run_once(Request(spec, "inline", privacy=tmp_path / "keys"))
    summary, _, _ = run_once(Request(spec, privacy=tmp_path / "keys"), session=ray_session)
    assert summary["agents"]["student"]["weights_sha256"] == expected["agents"]["student"]["weights_sha256"]
    assert summary["privacy"] == expected["privacy"]
