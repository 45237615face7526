"""Meshes with parties, simulated: the bits of the same mesh without, samples of their own, Ray, and runs that stop."""

from __future__ import annotations

import csv

import pytest
import torch
from sklearn.datasets import load_digits

from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

TRAIN = {"batch_size": 32, "optimizer": {"adamw": {"lr": 5e-3}}}
SHARDS = {"of": "train", "shards": {"by": "class", "classes": 5, "of": ["a", "b", "c"]}, "private": True}


def council(rule="mean", **more):
    node = {"rule": rule} if isinstance(rule, str) else rule
    rounds = {"students": ["a", "b", "c"], "objective": {"kl": {"temperature": 1}}, "rounds": 3, **more}
    return {
        "data": {"dataset": "digits", "transfer": 0.3, "train": 300, "validation": 60, "test": 60},
        "streams": {"own": SHARDS},
        "agents": {name: {"model": {"mlp": {"hidden": [width]}}} for name, width in (("a", 8), ("b", 12), ("c", 8))},
        "connect": [{"rounds": {**rounds, "labels_stream": "own", "consensus": node}}],
        "train": TRAIN,
    }


def weights(fields, session=None):
    summary, _, _ = run_once(Request(parse(fields), "inline"), session=session)
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}, summary


PARTIES = {"north": ["a"], "south": ["b"], "east": ["c"]}


@pytest.mark.parametrize("more", [{}, {"include_self": False}], ids=["all", "leave-one-out"])
def test_a_consensus_that_is_sent_has_the_bits_of_one_that_is_formed_where_it_is_read(more):
    apart, summary = weights({**council(**more), "parties": PARTIES})
    together, expected = weights(council(**more))
    assert apart == together
    assert summary["consensus"] == expected["consensus"]


@pytest.mark.ray
def test_parties_in_processes_of_their_own_have_the_same_bits(ray_session):
    made = {**council("median"), "parties": PARTIES}
    assert weights(made, session=ray_session)[0] == weights(made)[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Digits as CSV files: public ones, and those of parties that lack some classes."""
    folder, (x, y) = tmp_path_factory.mktemp("parties"), load_digits(return_X_y=True)

    def write(name, rows):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"p{number}" for number in range(64)), "digit"])
            writer.writerows([*x[row].astype(int), f"d{y[row]}"] for row in rows)

    write("public", range(300))
    write("a", [row for row in range(300, 700) if y[row] < 4])
    write("b", [row for row in range(700, 1100) if 3 <= y[row] < 7])
    write("c", [row for row in range(1100, 1400) if y[row] > 6])
    return folder


def csv_of(folder, name, label="digit"):
    return {"csv": {"path": str(folder / f"{name}.csv"), "label": label}}


def test_a_party_whose_samples_are_counted_has_as_many(files):
    made = own(files)
    made["parties"]["north"]["samples"] = 7
    with pytest.raises(MeshError, match=r"the file says 7, and there are \d+ samples") as error:
        examine(make_plan(parse(made), registry()))
    assert error.value.where == "parties.north.samples" and error.value.instead.startswith("samples: ")
    del made["parties"]["north"]["data"]
    with pytest.raises(MeshError, match="counts a party's own `data`, and here are none"):
        parse(made)


def own(folder, **more):
    made = council()
    parties = {party: {"agents": [name], "data": csv_of(folder, name)} for party, (name,) in PARTIES.items()}
    return {**made, "data": {"dataset": csv_of(folder, "public"), "transfer": 0.3}, "streams": {}, "parties": parties,
            **more}  # fmt: skip


def test_samples_of_parties_have_the_public_classes(files):
    found = examine(make_plan(parse(own(files)), registry()))
    table = found.table
    assert table.labels == [f"d{number}" for number in range(10)]
    shards = found.streams["own"].shards
    assert {name: sorted(table.y[rows].unique().tolist()) for name, rows in shards.items()} == {
        "a": [0, 1, 2, 3], "b": [3, 4, 5, 6], "c": [7, 8, 9],
    }  # fmt: skip
    assert found.streams["own"].private and not torch.isin(found.streams["own"].rows, found.streams["train"].rows).any()
    plain = examine(make_plan(parse({**own(files), "parties": {}, "streams": {"own": SHARDS}}), registry()))
    for name in ("train", "validation", "test", "transfer"):  # nothing of a party moves public samples
        assert found.streams[name].rows.equal(plain.streams[name].rows)


def test_who_has_no_samples_of_a_party_has_the_same_rows(files):
    """What other processes know of them is how many there are."""
    plan = make_plan(parse(own(files)), registry())
    whole, streams = Source().load(plan)
    sizes = {"south": len(streams["own"].shards["b"]), "east": len(streams["own"].shards["c"])}
    part, found = Source(sizes=sizes).load(plan)
    assert {name: stream.rows.tolist() for name, stream in found.items()} == {
        name: stream.rows.tolist() for name, stream in streams.items()
    }
    here, away = streams["own"].shards["a"], torch.cat([streams["own"].shards[name] for name in "bc"])
    assert part.x[here].equal(whole.x[here]) and part.y[here].equal(whole.y[here])
    assert bool(part.x[away].isnan().all()) and bool((part.y[away] == -1).all())


def test_a_size_is_of_each_party_s_own(files):
    found = examine(make_plan(parse(own(files, streams={"few": {"of": "own", "size": 0.5}})), registry()))
    own_, few = found.streams["own"].shards, found.streams["few"].shards
    assert {name: len(rows) for name, rows in few.items()} == {
        name: round(len(rows) / 2) for name, rows in own_.items()
    }
    assert all(bool(torch.isin(few[name], own_[name]).all()) for name in few)


def test_agents_of_one_party_see_the_same_batches_of_its_samples(files):
    """So a teacher may teach on what its party has."""
    made = own(files, agents={"t": {"model": {"mlp": {"hidden": [16]}}}, "s": {"model": {"mlp": {"hidden": [8]}}}})
    made["parties"] = {"north": {"agents": ["t", "s"], "data": csv_of(files, "a")}}
    made["connect"] = []
    made["flows"] = [
        {"from": "labels", "to": "t", "objective": "ce", "stream": "own"},
        {"from": "t", "to": "s", "objective": {"kl": {"temperature": 2}}, "stream": "own", "refresh": "step"},
    ]
    made["train"] = {**TRAIN, "epochs": 8}
    found = examine(make_plan(parse(made), registry()))
    assert found.streams["own"].owner("s") == found.streams["own"].owner("t") == "t"
    _, summary = weights(made)
    assert summary["agents"]["s"]["updates"] == summary["agents"]["t"]["updates"] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("p7,", "p8,", 1), "a name for each column, each once"),
        (lambda text: text.replace("p7,", "q7,", 1), "no column 'p7', as the public data have"),
        (lambda text: text.replace("d2", "e2"), "a class 'e2' that the public data do not have"),
        (lambda text: "\n".join(line.split(",", 1)[1] for line in text.splitlines()), "samples of shape"),
    ],
    ids=["twice", "other column", "other class", "narrower"],
)
def test_samples_unlike_the_public_ones_name_their_party(files, tmp_path, change, said):
    (tmp_path / "a.csv").write_text(change((files / "a.csv").read_text()))
    made = own(files)
    made["parties"]["north"]["data"] = csv_of(tmp_path, "a")
    with pytest.raises(MeshError, match=said) as error:
        examine(make_plan(parse(made), registry()))
    assert error.value.where.startswith("parties.north.data")


def test_a_file_that_is_not_there_names_its_party(files):
    made = own(files)
    made["parties"]["south"]["data"] = csv_of(files, "none")
    with pytest.raises(MeshError) as error:
        examine(make_plan(parse(made), registry()))
    assert error.value.where.startswith("parties.south.data")


@pytest.mark.ray
def test_samples_of_parties_train_alike_in_processes_of_their_own(files, ray_session):
    assert weights(own(files), session=ray_session)[0] == weights(own(files))[0]


def test_what_is_prepared_is_fitted_on_public_samples_alone(files, tmp_path):
    """A party's first value is far from all others: it moves nothing, and is shown nowhere."""
    text = (files / "a.csv").read_text().splitlines()
    (tmp_path / "a.csv").write_text("\n".join([text[0], "77777," + text[1].split(",", 1)[1], *text[2:]]))
    made = own(files)
    made["data"] = {**made["data"], "prepare": [{"columns": "numbers", "scale": "standard"}]}
    made["parties"]["north"]["data"] = csv_of(tmp_path, "a")
    connect = [{"rounds": {**made["connect"][0]["rounds"], "labels_stream": "train"}}]
    plain = {**made, "parties": {}, "connect": connect}
    table, alone = (examine(make_plan(parse(fields), registry())).table for fields in (made, plain))
    count = len(alone)
    assert table.x[:count].equal(alone.x) and table.prepared.example == alone.prepared.example
    assert table.x[count, 0] > 1000 and table.known[count, 0] == 77777
    assert "77777" not in str(table.prepared.example)
    assert weights(made)[1]["agents"]["b"]["updates"] > 0


def test_a_coordinator_without_agents_keeps_a_history(tmp_path, monkeypatch):
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "store"))
    made = {**council({"rule": "mean", "history": "last"}), "parties": PARTIES}
    _, summary = weights(made)
    ((known),) = summary["store"]["histories"].values()
    assert known["rounds"] == 3 and len(known["entries"]) == 1
