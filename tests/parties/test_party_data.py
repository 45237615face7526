"""Parties apart with other splits, seeds, labels and samples than digits by class: the bits of a simulation."""

from __future__ import annotations

import csv
import json

import pytest
from sklearn.datasets import load_digits
from test_gatekeeper import Room, hosted, one_at_a_time

from kdmesh.backends.parties import PartiesBackend
from kdmesh.checks import divided
from kdmesh.engine.check import check, examine
from kdmesh.engine.experiment import Experiment
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.parties.member import Member
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

SMALL, OTHER = {"model": {"mlp": {"hidden": [8]}}}, {"model": {"mlp": {"hidden": [12]}}}
MESH = {
    "data": {"dataset": "digits", "transfer": 0.3, "train": 160, "validation": 20, "test": 20},
    "agents": {"a": SMALL, "b": OTHER},
    "parties": {"north": ["a"], "south": ["b"]},
    "connect": [{"rounds": {"students": ["a", "b"], "rounds": 2, "labels_stream": "own"}}],
    "train": {"batch_size": 32},
}


def own(**shards):
    return {"own": {"of": "train", "shards": {"of": ["a", "b"], **shards}, "private": True}}


def alike(fields, tmp_path):
    """Run it both ways, and compare all weights and figures."""
    spec = parse(fields)
    simulated, _, _ = run_once(Request(spec, "inline"))
    room = Room({name: Member(spec, name, tmp_path / name) for name in spec.parties})
    one_at_a_time(room)
    backend = PartiesBackend(room)
    summary, _, _ = run_once(Request(spec, hosted=backend), session=hosted(backend))
    for name, agent in simulated["agents"].items():
        assert summary["agents"][name]["weights_sha256"] == agent["weights_sha256"]
        assert summary["agents"][name]["metrics"] == agent["metrics"]
    return simulated


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Digits in a file, of three sites."""
    path, (x, y) = tmp_path_factory.mktemp("sites") / "digits.csv", load_digits(return_X_y=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"p{number}" for number in range(64)), "digit", "site"])
        writer.writerows([*x[row].astype(int), f"d{y[row]}", f"site{row % 3}"] for row in range(400))
    return {"csv": {"path": str(path), "label": "digit"}}


@pytest.mark.parametrize("shards", [{"by": "dirichlet", "alpha": 0.3}, {"by": "class", "classes": 4}, {"by": "iid"}])
def test_each_split_is_the_same_apart(shards, tmp_path):
    alike({**MESH, "streams": own(**shards)}, tmp_path)


def test_parties_are_values_of_a_column(sites, tmp_path):
    streams = {"own": {**own(by="column", column="site")["own"], "where": {"site": ["site0", "site2"]}}}
    fields = {**MESH, "data": {**MESH["data"], "dataset": sites}, "streams": streams}
    alike(fields, tmp_path)
    plan = make_plan(parse(fields), registry())
    checked = examine(plan)
    values = checked.table.columns["site"]
    assert [{values[row] for row in rows.tolist()} for rows in checked.streams["own"].shards.values()] == [
        {"site0"}, {"site2"},
    ]  # fmt: skip
    said = divided.told(plan, checked)
    assert said[-3:] == ["values of 'site' in stream own, by owner:", "  north: site0", "  south: site2"]


def test_check_counts_what_every_party_has():
    plan = make_plan(parse({**MESH, "streams": own(by="class", classes=5)}), registry())
    said = check(plan)
    at = said.index("samples of each class in stream own, by owner:")
    rows = [line.split() for line in said[at + 1 : at + 4]]
    assert rows[0] == list("0123456789") and [row[0] for row in rows[1:]] == ["north", "south"]
    counts = [[int(cell) for cell in row[1:]] for row in rows[1:]]
    assert [sum(count > 0 for count in row) for row in counts] == [5, 5] and sum(map(sum, counts)) == 160


def test_many_classes_are_told_in_words():
    plan = make_plan(parse({**MESH, "streams": own(by="dirichlet")}), registry())
    checked = examine(plan)
    checked.table.classes, checked.table.labels = 60, []
    lines = divided.told(plan, checked)
    assert len(lines) == 3 and all(" classes, " in line and "% of " in line for line in lines[1:])


def test_several_seeds_apart(tmp_path):
    spec = parse({**MESH, "streams": own(by="class", classes=5)})
    expected = Experiment(Request(spec, "inline", seeds=2)).run()
    room = Room({name: Member(spec, name, tmp_path / name) for name in spec.parties})
    one_at_a_time(room)
    found = Experiment(Request(spec, hosted=PartiesBackend(room), seeds=2)).run()
    assert found.summaries.keys() == expected.summaries.keys() == {0, 1}
    for seed, summary in expected.summaries.items():
        for name, agent in summary["agents"].items():
            assert found.summaries[seed]["agents"][name]["weights_sha256"] == agent["weights_sha256"]


def test_regression_apart(tmp_path):
    data = {"dataset": "diabetes", "train": 120, "transfer": 80, "validation": 30, "test": 30}
    rounds = {"students": ["a", "b"], "rounds": 2, "labels_stream": "own", "objective": "mse"}
    found = alike(
        {**MESH, "task": "regression", "data": data, "connect": [{"rounds": rounds}], "streams": own(by="iid")},
        tmp_path,
    )
    assert found["agents"]["a"]["metrics"]["test"]


TINY = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64}


@pytest.mark.filterwarnings("ignore")
def test_texts_apart(tmp_path):
    """A language model of letters, whose weights are averaged: parties are roles."""
    words = {"anna": "yes", "ben": "no", "all": "abcdefghijklmnopqrstuvwxyz 0123456789"}
    lines = [
        {"role": role, "text": f"{role} says {word} {number}"} for number in range(12) for role, word in words.items()
    ]
    path = tmp_path / "said.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    model = {"model": {"hf": {"tokenizer": {"characters": {}}, "config": TINY}}}
    shares = {"as": "weights", "refresh": "round"}
    streams = {"own": {**own(by="column", column="role")["own"], "where": {"role": ["anna", "ben"]}}}
    alike(
        {
            "task": "language_modelling",
            "data": {"dataset": {"text": {"path": str(path), "text": "text"}}, "validation": 3, "test": 3},
            "text": {"max_length": 64},
            "streams": streams,
            "agents": {"s": {**model, "update": "merged"}, **{one: {**model, "init_of": "s"} for one in "ab"}},
            "parties": MESH["parties"],
            "flows": [
                {"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own"},
                {"from": ["a", "b"], "to": "s", **shares, "weight": "samples", "stream": "own", "discloses": "weights"},
                {"from": "s", "to": ["a", "b"], **shares},
            ],
            "program": [
                {"of": ["a", "b", "s"], "repeat": 2, "do": [
                    {"train": ["a", "b"], "epochs": 1}, {"publish": ["a", "b"]}, {"publish": ["s"]}]},
            ],
            "train": {"batch_size": 4},
        },
        tmp_path,
    )  # fmt: skip
