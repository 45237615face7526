"""What must not change a bit: the long form read again, where agents live, and whether answers are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kdmesh
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import parse, read_mesh

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
PLAIN = ["single-teacher", "ensemble", "deep-mutual", "mean-teacher", "previous-batch", "previous-epoch"]
PLAIN += ["hint", "dense-chain"]
SMALL = ("data.train=100", "data.validation=40", "data.test=40", "train.epochs=2", "train.batch_size=32")


def weights(spec: MeshSpec) -> dict[str, str]:
    summary, _, _ = run_once(Request(spec, "inline"))
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}


@pytest.mark.parametrize("name", PLAIN)
def test_the_long_form_read_again_gives_the_same_weights(name: str) -> None:
    given = read_mesh(TOPOLOGIES / f"{name}.yaml", SMALL)
    plan = make_plan(given, registry())
    expected = weights(given)
    assert weights(parse(plan.spec.dump())) == expected
    assert weights(plan.resolved()) == expected


def test_a_stored_teacher_equals_a_live_one(mesh: Any, hashes: Any) -> None:
    found = []
    for refresh in ("once", "step"):
        made = mesh({"t": {"update": "frozen", "model": {"mlp": {"hidden": [16]}}}, "s": {}})
        made.connect("ensemble", teachers="t", student="s", refresh=refresh)
        found.append(hashes(made))
    assert found[0] == found[1]


def peers(made: kdmesh.Mesh, order: str) -> None:
    made.connect("mutual", peers=["a", "b", "c"], order=order)


def mean_teacher(made: kdmesh.Mesh, _: str) -> None:
    for name in "abc":
        made.connect("self", student=name, teacher="ema", decay=0.9)


def ensemble(made: kdmesh.Mesh, _: str) -> None:
    made.connect("ensemble", teachers=["a", "b"], student="c")


def mix(made: kdmesh.Mesh, _: str) -> None:
    made.connect("mutual", peers=["a", "b"], consensus={"rule": "mean", "include_self": False})
    made.connect("ensemble", teachers=["a", "b"], student="c")
    made.connect("self", student="c", teacher="ema", labels=0.5)


def nested(made: kdmesh.Mesh, _: str) -> None:
    """A consensus that leaves the reader out feeds another one."""
    made.flow("labels", ["a", "b", "c"], objective="ce")
    made.consensus("inner", "mean", include_self=False)
    made.consensus("outer", "mean")
    made.flow(["a", "b"], "inner", refresh="step")
    made.flow("inner", "outer")
    made.flow("c", "outer", refresh="step")
    made.flow("outer", ["a", "b"], objective="kl")


def ramp_on_shards(made: kdmesh.Mesh, _: str) -> None:
    """Owners of unequal shards, whose flows grow with the epochs of their own shard."""
    made.flow("labels", ["a", "b", "c"], objective="ce", stream="own", weight={"start": 1, "end": 0, "epochs": 3})
    made.flow(["a", "b", "c"], ["a", "b", "c"], objective="kl", refresh="step")


@pytest.mark.parametrize(
    ("connect", "order"),
    [
        (peers, "simultaneous"),
        (peers, "sequential"),
        (mean_teacher, ""),
        (ensemble, ""),
        (mix, ""),
        (nested, ""),
        (ramp_on_shards, ""),
    ],
)
def test_spread_agents_learn_the_same_bits_as_together(mesh: Any, hashes: Any, connect: Any, order: str) -> None:
    found = []
    for placement in ("together", "spread"):
        streams = {"own": {"shards": {"by": "dirichlet", "of": ["a", "b", "c"]}}} if connect is ramp_on_shards else {}
        made = mesh(
            {"a": {}, "b": {"model": {"mlp": {"hidden": [12], "dropout": 0.3}}}, "c": {}},
            placement=placement,
            streams=streams,
            train={"batch_size": 8},
        )
        connect(made, order)
        found.append(hashes(made))
    assert found[0] == found[1]


def test_an_augmented_view_is_reproducible_and_its_draws_count(mesh: Any, hashes: Any) -> None:
    def run(**view: Any) -> dict[str, str]:
        made = mesh({"s": {"view": {"augment": [{"noise": {"std": 0.5}}], **view}}})
        made.flow("labels", "s", objective="ce")
        return hashes(made)

    assert run() == run()
    assert run() != run(draws=1)
