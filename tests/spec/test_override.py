from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.spec.override import apply
from kdmesh.spec.yaml12 import load

NAMES = st.text(alphabet="abcdefgh_", min_size=1, max_size=6)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(st.integers(), max_size=3)
)
TREES = st.recursive(VALUES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)


@given(path=st.lists(NAMES, min_size=1, max_size=4), value=VALUES | NAMES)
def test_what_is_set_in_nothing_reads_back(path, value):
    data = apply({}, [f"{'.'.join(path)}={json.dumps(value)}"])
    for name in path:
        assert list(data) == [name]
        data = data[name]
    assert data == value


@given(data=st.dictionaries(NAMES, TREES, max_size=4), name=NAMES, value=st.integers())
def test_setting_one_field_leaves_the_others_and_the_input_alone(data, name, value):
    before = copy.deepcopy(data)
    changed = apply(data, [f"{name}={value}"])
    assert changed == {**before, name: value}
    assert data == before


def test_lists_are_stepped_through_by_index():
    data = {"flows": [{"weight": 1.0}, {"weight": 2.0}]}
    assert apply(data, ["flows.1.weight=5e-1"]) == {"flows": [{"weight": 1.0}, {"weight": 0.5}]}


def test_a_name_without_settings_opens():
    data = {"connect": [{"ensemble": {"objective": "kl"}}]}
    changed = apply(data, ["connect.0.ensemble.objective.kl.temperature=2"])
    assert changed == {"connect": [{"ensemble": {"objective": {"kl": {"temperature": 2}}}}]}


def test_an_import_path_is_one_step_though_it_has_dots():
    data = {"agents": {"s": {"model": "my.nets:Small"}}}
    opened = apply(data, ["agents.s.model.my.nets:Small.width=8", "agents.s.model.my.nets:Small.depth=2"])
    assert opened["agents"]["s"]["model"] == {"my.nets:Small": {"width": 8, "depth": 2}}


def test_short_data_and_short_consensus_open_to_their_long_form():
    assert apply({"data": "digits"}, ["data.test=0.1"]) == {"data": {"dataset": "digits", "test": 0.1}}
    opened = apply({"consensus": {"c": "mean"}}, ["consensus.c.space=logits"])
    assert opened == {"consensus": {"c": {"rule": "mean", "space": "logits"}}}


def test_an_agent_without_settings_opens():
    assert apply({"agents": {"a": None}}, ["agents.a.seed=3"]) == {"agents": {"a": {"seed": 3}}}


def test_changing_one_use_of_an_anchor_leaves_the_other():
    data = load("a: &x {lr: 1}\nb: *x")
    assert apply(data, ["a.lr=2"]) == {"a": {"lr": 2}, "b": {"lr": 1}}


def test_later_overrides_win():
    assert apply({}, ["seed=1", "seed=2"]) == {"seed": 2}


@pytest.mark.parametrize(
    ("override", "what", "instead"),
    [
        ("seed", "cannot read 'seed'", "path.to.field=value"),
        ("train..epochs=3", "cannot read", "path.to.field=value"),
        ("=3", "cannot read", "path.to.field=value"),
        ("flows.1.weight=3", "`flows` is a list without an entry 1", "the list has the entries 0 to 0"),
        ("flows.-1.weight=3", "`flows` is a list without an entry -1", "an index"),
        ("program.0.repeat=3", "`program` is not there", "program=[...]"),
        ("flows.0.objective.mse.x=3", "`flows.0.objective` is 'kl'", "flows.0.objective.kl.x=..."),
        ("flows.0.weight.start.x=3", "`flows.0.weight` is 0.5", "flows.0.weight=..."),
        ("seed=[1", "`[` is opened here", ""),
    ],
)
def test_errors_say_what_to_write(override, what, instead):
    with pytest.raises(MeshError) as caught:
        apply({"flows": [{"objective": "kl", "weight": 0.5}]}, [override])
    assert caught.value.where.startswith("--set")
    assert what in caught.value.what
    assert instead in caught.value.instead


NAMED = {
    "agents": {"student": {"model": "mlp"}, "teacher": None},
    "streams": {"few": {"size": 100}},
    "connect": [{"ensemble": {"teachers": "teacher", "student": "student"}}],
    "train": {"optimizer": {"adamw": {"lr": 1e-3}}},
}


@pytest.mark.parametrize(
    ("override", "what", "instead"),
    [
        (
            "agents.studnet.seed=3",
            "there is no 'studnet' in `agents`",
            "did you mean 'student'? agents: student, teacher",
        ),
        ("agents.s.model.mlp.hidden=[3]", "there is no 's' in `agents`", "agents.s={...} adds it"),
        ("streams.fw.size=3", "there is no 'fw' in `streams`", "did you mean 'few'?"),
        ("consensus.c.space=logits", "there is no 'c' in `consensus`", "consensus: none"),
        ("connect.0.ensembel.labels=1", "`connect.0` is 'ensemble', not 'ensembel'", "connect.0.ensemble.labels=..."),
        ("train.optimizer.sgd.lr=1", "`train.optimizer` is 'adamw', not 'sgd'", "train.optimizer={sgd: ...}"),
        ("train.optimizer.sgd={}", "`train.optimizer` is 'adamw', not 'sgd'", "train.optimizer={sgd: ...}"),
    ],
)
def test_what_users_name_and_other_choices_are_not_made_on_the_way(override, what, instead):
    with pytest.raises(MeshError) as caught:
        apply(NAMED, [override])
    assert caught.value.what == what
    assert instead in caught.value.instead


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("agents.new={model: mlp}", ("agents", "new"), {"model": "mlp"}),
        ("agents.teacher.seed=3", ("agents", "teacher"), {"seed": 3}),
        ("agents.student.train.epochs=3", ("agents", "student", "train"), {"epochs": 3}),
        ("agents.student.taps.mid=layers.0", ("agents", "student", "taps"), {"mid": "layers.0"}),
        ("text.max_length=9", ("text",), {"max_length": 9}),
        ("train.schedule.cosine.warmup=9", ("train", "schedule"), {"cosine": {"warmup": 9}}),
    ],
)
def test_a_whole_part_and_a_section_that_is_missing_are_made(override, path, value):
    found = apply(NAMED, [override])
    for part in path:
        found = found[part]
    assert found == value
