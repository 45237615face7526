"""Controls of parties: each alone, the average of their weights, and all their samples in one place."""

from __future__ import annotations

import csv

import pytest
from sklearn.datasets import load_digits

from kdmesh import Mesh
from kdmesh.engine import controls
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.disclosed import crossings, told
from kdmesh.graph.planner import make_plan
from kdmesh.graph.roles import roles
from kdmesh.parties.coordinating import refuse_apart
from kdmesh.plugins import registry
from kdmesh.spec import StreamSpec
from kdmesh.spec.read import parse

OWN = {"of": "train", "shards": {"by": "class", "classes": 5, "of": ["a", "b", "c"]}, "private": True}
SMALL, OTHER = {"model": {"mlp": {"hidden": [8]}}}, {"model": {"mlp": {"hidden": [12]}}}
MESH = {
    "data": {"dataset": "digits", "transfer": 0.3, "train": 200, "validation": 40, "test": 40},
    "streams": {"own": OWN},
    "agents": {"a": SMALL, "b": SMALL, "c": OTHER},
    "parties": {"north": "a", "south": "b", "east": "c"},
    "connect": [{"rounds": {"students": ["a", "b", "c"], "rounds": 2, "labels_stream": "own"}}],
    "train": {"batch_size": 32, "optimizer": {"adamw": {"lr": 5e-3}}},
}


def weights(spec):
    summary, _, _ = run_once(Request(spec, "inline"))
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}


def plan(**more):
    return make_plan(parse({**MESH, **more}), registry())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Mesh(**MESH).run(backend="inline", controls=True, out=tmp_path_factory.mktemp("runs"))


def test_each_party_is_compared_with_itself_alone_with_an_average_and_with_pooling(run):
    found = run.summary["controls"]
    assert {name: [*made] for name, made in found.items()} == {
        "a": ["alone", "averaged", "pooled"],
        "b": ["alone", "averaged", "pooled"],
        "c": ["alone", "pooled"],  # nobody has its model
    }
    assert found["a"]["averaged"] == found["b"]["averaged"] and found["a"]["pooled"] != found["b"]["pooled"]
    assert any(
        "stream 'own-pooled' has private samples in one place: a simulation" in one for one in run.summary["notes"]
    )


def test_pooled_samples_are_those_of_all(run):
    """And the student has its own initial weights and as many updates."""
    made = plan()
    updates = run.summary["agents"]["a"]["updates"]
    pooled = controls.pooled(made, "a", updates)
    checked = examine(make_plan(pooled, registry()))
    assert checked.streams["own-pooled"].shards is None and not checked.streams["own-pooled"].private
    assert [*checked.streams["own-pooled"].rows] == [*checked.streams["own"].rows]
    open_ = pooled.model_copy(update={"streams": {"own-pooled": StreamSpec(of="train")}})
    assert weights(open_)["a"] == weights(pooled)["a"]


def test_an_average_is_that_of_fedavg():
    made = controls.averaged(plan(), "a", 20)
    again = make_plan(made, registry())
    assert made == controls.averaged(plan(), "b", 20) and controls.averaged(plan(), "c", 20) is None
    assert roles(again)["a"] == "peer" and roles(again)["average"] == "average"
    assert {(flow.source, flow.target) for flow in again.merging.flows} == {
        ("a", "average"), ("b", "average"), ("average", "a"), ("average", "b"),
    }  # fmt: skip
    assert [line.times for line in again.stages[0].program.body] == [2] and made.agents["a"].seed == made.agents[
        "b"
    ].seed


def test_who_takes_weights_of_others_that_learn_is_no_one_alone(tmp_path):
    flows = [
        {"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own"},
        {"from": ["a", "b"], "to": "s", "as": "weights", "refresh": "epoch"},
        {"from": "s", "to": ["a", "b"], "as": "weights", "refresh": "epoch"},
    ]
    agents = {"a": SMALL, "b": SMALL, "c": OTHER, "s": {**SMALL, "update": "merged"}}
    own = [*flows, {"from": "labels", "to": "c", "objective": "ce", "stream": "own"}]
    fields = {**MESH, "connect": [], "flows": own, "agents": agents, "parties": {}}
    assert roles(make_plan(parse(fields), registry())) == {"a": "peer", "b": "peer", "c": "alone", "s": "average"}
    made = Mesh(**fields).run(backend="inline", controls=True, out=tmp_path).summary["controls"]
    assert {name: [*one] for name, one in made.items()} == {"a": ["alone", "pooled"], "b": ["alone", "pooled"]}


def test_alone_begins_with_the_weights_that_the_mesh_gives_it():
    """Of a frozen agent, before it learns: that is where it starts, and no teaching."""
    flows = [
        {"from": "labels", "to": "a", "objective": "ce", "stream": "train"},
        {"from": "b", "to": "a", "as": "weights", "refresh": "once"},
        {"from": "c", "to": "a", "objective": "kl", "stream": "transfer"},
    ]
    agents = {"a": SMALL, "b": {**SMALL, "update": "frozen"}, "c": OTHER}
    fields = {**MESH, "connect": [], "flows": flows, "agents": agents, "parties": {}, "streams": {}}
    made = make_plan(parse(fields), registry())
    alone = controls.alone(made, "a", 10)
    assert [(flow.from_, flow.as_) for flow in alone.flows] == [(["labels"], "target"), (["b"], "weights")]
    assert weights(alone)["a"] != weights(alone.model_copy(update={"flows": alone.flows[:1]}))["a"]


@pytest.fixture
def files(tmp_path):
    """Digits as CSV files: public ones, and those of two parties."""
    x, y = load_digits(return_X_y=True)
    for name, rows in (("public", range(200)), ("a", range(200, 320)), ("b", range(320, 420))):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"p{number}" for number in range(64)), "digit"])
            writer.writerows([*x[row].astype(int), f"d{y[row]}"] for row in rows)
    return tmp_path


def test_parties_with_files_have_controls_too(files):
    def data(name):
        return {"csv": {"path": str(files / f"{name}.csv"), "label": "digit"}}

    fields = {
        **{key: value for key, value in MESH.items() if key not in ("streams",)},
        "data": {"dataset": data("public"), "transfer": 0.3, "validation": 30, "test": 30},
        "agents": {"a": SMALL, "b": SMALL},
        "parties": {"north": {"agents": "a", "data": data("a")}, "south": {"agents": "b", "data": data("b")}},
        "connect": [{"rounds": {"students": ["a", "b"], "rounds": 2, "labels_stream": "own"}}],
    }
    made = Mesh(**fields).run(backend="inline", controls=True, out=files / "runs").summary["controls"]
    assert {name: [*one] for name, one in made.items()} == {one: ["alone", "averaged", "pooled"] for one in "ab"}


POOLED = [{"from": "labels", "to": ["a", "b", "c"], "objective": "ce", "stream": "all"}]


def test_a_mesh_may_pool_what_is_private_in_a_simulation_that_says_so():
    made = plan(connect=[], flows=POOLED, streams={"own": OWN, "all": {"of": "own", "pooled": True}})
    assert [one for one in crossings(made) if one.what == "samples"] and "no party could run" in told(made)[0]
    with pytest.raises(MeshError, match="'all' pools samples of several parties") as error:
        refuse_apart(made)
    assert error.value.where == "streams.all.pooled"


@pytest.mark.parametrize(
    ("streams", "where", "said"),
    [
        ({"all": {"of": "train", "pooled": True}}, "streams.all.pooled", "'train' is not private"),
        ({"own": OWN, "all": {"of": "own", "pooled": True, "size": 0.5}}, "streams.all.size", "has all of `of`"),
    ],
)
def test_what_pools_nothing_is_refused(streams, where, said):
    with pytest.raises(MeshError, match=said) as error:
        examine(plan(connect=[], flows=POOLED, streams=streams))
    assert error.value.where == where


def test_controls_have_all_parties_in_all_rounds():
    made = plan(participation={"fraction": 0.5})
    for control in (controls.alone(made, "a", 10), controls.averaged(made, "a", 10), controls.pooled(made, "a", 10)):
        assert control.participation is None
        examine(make_plan(control, registry()))
