from __future__ import annotations

import pytest

from kdmesh.compare.contender import contenders, counted, named, taught_by
from kdmesh.compare.design import Design
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry

MESH = """
data: digits
agents:
  teacher: {model: {mlp: {hidden: [8]}}}
  student: {model: {mlp: {hidden: [4]}}}
connect: [{ensemble: {teachers: [teacher], student: student}}]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(MESH, encoding="utf-8")
    return str(path)


def test_files_and_variants_of_the_first_are_contenders_by_name(file):
    made = contenders(
        [file, "deep-mutual"], ["train.clip=0.5", "slow: train.epochs=9 seed=3"], ["train.batch_size=8"], [[], []]
    )
    assert [one.name for one in made] == ["small", "deep-mutual", "variant-1", "slow"]
    assert [one.differs for one in made[2:]] == [("train.clip=0.5",), ("train.epochs=9", "seed=3")]
    assert {one.spec.train.batch_size for one in made} == {8}
    assert (made[2].spec.train.clip, made[3].spec.train.epochs, made[3].spec.seed) == (0.5, 9, 3)
    assert made[0].text == MESH


def test_two_files_of_one_name_are_told_apart(file):
    assert [one.name for one in contenders([file, file], [], [], [[], []])] == ["small", "small-2"]


@pytest.mark.parametrize(
    ("variant", "found"),
    [
        ("train.lr", "says no PATH=VALUE"),
        ("", "says no PATH=VALUE"),
        ("name: ", "says no PATH=VALUE"),
        ("a/b: train.lr=1", "has '/' in it"),
        ("train.lr=1 and", "says no PATH=VALUE"),
    ],
)
def test_what_is_no_variant_is_refused_with_an_example(variant, found):
    with pytest.raises(MeshError, match="--variant") as refused:
        named(variant, "variant-1")
    assert found in str(refused.value)


def test_one_mesh_is_nothing_to_compare(file):
    with pytest.raises(MeshError, match="nothing to be compared with"):
        contenders([file], [], [], [[]])


def plans(**files):
    from kdmesh.spec.read import read_mesh

    made = {name: make_plan(read_mesh(file), registry()) for name, file in files.items()}
    return {name: taught_by(plan) for name, plan in made.items()}, {
        name: [*one.spec.agents] for name, one in made.items()
    }


def test_the_one_agent_that_is_taught_counts(file):
    assert counted(*plans(a=file, b="ensemble"), {}) == {"a": "student", "b": "student"}


def test_of_several_that_are_taught_one_must_be_named(file):
    known = plans(a=file, b="deep-mutual")
    with pytest.raises(MeshError, match=r"(?s)b teaches 3 agents: .*--agent b="):
        counted(*known, {})
    first = known[1]["b"][0]
    assert counted(*known, {"b": first}) == {"a": "student", "b": first}
    with pytest.raises(MeshError, match="b has no agent 'student'"):
        counted(*known, {"": "student"})
    with pytest.raises(MeshError, match="'c' is no contender"):
        counted(*known, {"c": "x"})


def entry(agent: str = "s") -> dict:
    return {"mesh": {}, "agent": agent}


def test_trials_of_one_seed_come_side_by_side_and_every_pair_can_be_asked_for():
    made = Design.model_validate({"contenders": {n: entry() for n in "abc"}, "seeds": [4, 5], "data_seeds": [1]})
    assert [(one.contender, one.seed) for one in made.trials()] == [(n, seed) for seed in (4, 5) for n in "abc"]
    assert made.pairs() == [("b", "a"), ("c", "a")]
    each = made.model_copy(update={"against": "each"})
    assert each.pairs() == [("b", "a"), ("c", "a"), ("c", "b")]
    assert str(next(made.trials())) == "a, seed 4, data seed 1"
    assert next(made.trials()).folder == "trials/a/data-1-seed-4"
