"""Numbers that cannot be meant are refused where they stand, whatever field they stand in, from files and Python."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.plugins import registry
from kdmesh.spec.mesh import MeshSpec
from kdmesh.spec.numbers import refuse_odd_values
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

HUGE = f"0x{'f' * 100_000}"
AGENTS = "agents: {a: {model: mlp}}\n"
FIELDS = [
    "seed", "train.epochs", "train.steps", "train.batch_size", "train.clip", "train.accumulate", "train.evaluate_every",
    "train.early_stopping.patience", "data.test", "data.validation", "data.train", "data.seed", "agents.a.seed",
    "agents.a.count", "agents.a.view.draws", "agents.a.update.ema.decay", "agents.a.train.epochs",
    "train.optimizer.sgd.lr", "train.optimizer.adamw.betas.0", "agents.a.train.optimizer.adam.eps", "text.max_length",
    "streams.s.size", "streams.s.shards.alpha", "streams.s.only.0", "flows.0.weight", "flows.0.weight.start",
    "consensus.c.temperature", "placement.h.cpus", "placement.h.resources.tpu", "program.0.epochs",
    "program.0.until.agreement",
]  # fmt: skip


def nested(path, value):
    """Data with a value at a path; a number in it is the place in a list."""
    for part in reversed(path.split(".")):
        value = [value] if part.isdigit() else {part: value}
    return value


@pytest.mark.parametrize(
    ("value", "what", "instead"),
    [
        (float("nan"), "found nan", "a finite number"),
        (float("inf"), "found inf", "a finite number"),
        (-float("inf"), "found -inf", "a finite number"),
        (True, "found true", "a number"),
        (10**40, "a whole number of 133 bits", "a number below 2^63"),
        (-(2**63) - 1, "a whole number of 64 bits", "a number below 2^63"),
    ],
)
@pytest.mark.parametrize("path", FIELDS)
def test_an_odd_number_is_refused_at_its_place(path, value, what, instead):
    with pytest.raises(MeshError) as caught:
        refuse_odd_values(nested(path, value), MeshSpec, file="m.yaml")
    assert (caught.value.where, caught.value.what, caught.value.instead) == (path, what, instead)
    assert caught.value.file == "m.yaml"


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("objectives", "kl", "temperature"),
        ("strategies", "ensemble", "labels"),
        ("strategies", "ensemble", "weight.start"),
        ("strategies", "rounds", "rounds"),
        ("models", "mlp", "hidden.0"),
        ("models", "mlp", "dropout"),
        ("consensus", "trimmed_mean", "trim"),
        ("consensus", "weighted", "weights.0"),
        ("datasets", "csv", "classes"),
        ("views", "noise", "std"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, 10**40])
def test_so_it_is_in_the_settings_of_what_is_offered(kind, name, path, value):
    with pytest.raises(MeshError) as caught:
        registry().check(kind, name, nested(path, value), "there")
    assert caught.value.where == f"there.{name}.{path}"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (f"seed: {HUGE}", "line 2, column 7", "a whole number of 100,002 digits"),
        (f"train: {{optimizer: {{adamw: {{lr: {HUGE}}}}}}}", "line 2, column 33", "a whole number of 100,002 digits"),
        (f"seed: {'9' * 5000}", "line 2, column 7", "a whole number of 5,000 digits"),
        ("seed: 2024-01-01", "seed", "found '2024-01-01'"),
        ("train: {epochs: 1e400}", "train.epochs", "found inf"),
        ("train: {epochs: 2.5}", "train.epochs", "found 2.5"),
        ("seed: -1", "seed", "found -1"),
        ("agents2: 1", "agents2", "unknown field"),
        ("placement: {h: {agents: [a], resources: {tpu: -1}}}", "placement.h.resources.tpu", "found -1"),
        ("consensus: {c: {rule: mean, temperature: 1e-40}}", "consensus.c.temperature", "found 1e-40"),
        ("streams: {s: {only: [-1]}}", "streams.s.only.0", "found -1"),
    ],
)
def test_in_a_file_it_is_told_with_its_line_or_path(text, where, what):
    with pytest.raises(MeshError) as caught:
        parse(load(AGENTS + text, file="m.yaml"), file="m.yaml")
    assert (caught.value.file, caught.value.where) == ("m.yaml", where)
    assert caught.value.what.splitlines()[0].startswith(what)


def test_what_a_model_leaves_open_may_be_true_or_infinite_but_no_nan():
    refuse_odd_values({"agents": {"a": {"model": {"mine:Net": {"norm": float("inf"), "bias": True}}}}}, MeshSpec)
    refuse_odd_values({"train": {"optimizer": {"sgd": {"nesterov": True}}, "drop_last": True}}, MeshSpec)
    with pytest.raises(MeshError, match=r"agents\.a\.model\.mine:Net\.norm: found nan"):
        refuse_odd_values({"agents": {"a": {"model": {"mine:Net": {"norm": float("nan")}}}}}, MeshSpec)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(["agents", "train", "epochs", "flows", "weight", "optimizer", "a", "x"])


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)))
def test_any_data_are_read_or_refused_with_a_message(data):
    try:
        parse({"agents": {"a": None}, "train": data, "flows": [data]})
    except MeshError as error:
        assert error.what
