"""What no machine has is refused before anything is built, with the numbers; what it has is not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import kdmesh
from kdmesh.engine.check import check, examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.graph.resources import Resources
from kdmesh.hosts import bounds
from kdmesh.hosts.bounds import bounded
from kdmesh.placement import sizes
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.text.source import make_config, read_config

SMALL = {"model": {"mlp": {"hidden": [4]}}}
BILLION = 10**9


def plan(agents, **fields):
    return make_plan(parse({"data": "digits", "agents": agents, "train": {"epochs": 1}, **fields}), registry())


def refused(agents, **fields):
    with pytest.raises(MeshError) as caught:
        check(plan(agents, **fields))
    assert caught.value.exit_code == 2 and caught.value.instead
    return caught.value


@pytest.fixture
def room(monkeypatch):
    """Give this machine so many bytes of memory."""

    def give(memory):
        monkeypatch.setattr(sizes, "machine", lambda: Resources(2, 0, memory))

    return give


def test_a_model_that_no_machine_holds_is_refused_with_its_arithmetic(room):
    room(64 * sizes.GB)
    wide = {"model": {"mlp": {"hidden": [1_000_000, 1_000_000]}}}
    error = refused({"a": SMALL, "b": wide})
    assert error.where == "agents.b.model"
    assert "GiB of memory, and this machine has 64.0: b 14,902.3 (1,000,076,000,010 parameters, 3,725.6" in error.what
    assert "gradients 3,725.6, 7,451.1 of adamw)" in error.what


@pytest.mark.parametrize(
    ("train", "copies"),
    [
        ({"optimizer": "adamw"}, 4),
        ({"optimizer": {"sgd": {"lr": 0.1}}}, 2),
        ({"optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}}, 3),
    ],
)
def test_weights_gradients_and_the_optimisers_numbers_count(room, train, copies):
    found = examine(plan({"a": SMALL}))
    whole = found.parameters["a"] * 4 * copies
    assert sizes.memory(plan({"a": SMALL}, train={"epochs": 1, **train}), found, ["a"]) == whole
    mesh = plan({"a": SMALL}, train={"epochs": 1, "batch_size": 1, **train})
    beside = sizes.process(found) + 3 * 4 * (64 + 10)  # a batch of one
    room(whole + beside)
    sizes.refuse(mesh, found)
    room(whole + beside - 1)
    with pytest.raises(MeshError, match=r"a 0\.0 \(310 parameters"):
        sizes.refuse(mesh, found)


def test_who_does_not_train_keeps_weights_alone(room):
    agents = {"t": {**SMALL, "update": "frozen"}, "s": SMALL}
    mesh = plan(agents, connect=[{"ensemble": {"teachers": "t", "student": "s"}}])
    found = examine(mesh)
    assert sizes.memory(mesh, found, ["t"]) == 4 * found.parameters["t"]
    assert sizes.memory(mesh, found, ["s"]) == 16 * found.parameters["s"]


def test_many_that_fit_alone_do_not_fit_together(room):
    room(sizes.GB)
    party = {"p": {"model": {"mlp": {"hidden": [3000]}}, "count": 400}}
    error = refused(party)
    assert error.where == "agents.p[0].model" and "and 396 more" in error.what
    room(8 * sizes.GB)
    assert check(plan(party))[-1] == "everything fits"


def test_a_batch_counts(room):
    room(sizes.GB)
    table = kdmesh.data((torch.zeros(1, 10_000).expand(2000, -1), torch.arange(2000) % 2))  # 76 MB
    room(0.4 * sizes.GB)
    for size, fits in ((10, True), (1000, False)):
        mesh = plan({"a": SMALL}, data={"dataset": "python:given"}, train={"batch_size": size})
        if fits:
            examine(mesh, table=table)
        else:
            with pytest.raises(MeshError, match=r"this machine has 0\.4: .*; a batch 0\.1\)"):
                examine(mesh, table=table)


def test_a_cluster_that_is_joined_is_asked_itself(room):
    room(1.0)
    examine(plan({"a": SMALL}), here=False)
    with pytest.raises(MeshError, match=r"this machine has 0\.0"):
        examine(plan({"a": SMALL}))


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ({"mlp": {"hidden": [BILLION, BILLION]}}, "parameters, 4,096 GiB"),
        ({"mlp": {"hidden": [2**62, 2**62]}}, "too large"),
        ({"mlp": {"hidden": [1] * 3000}}, "1,000 modules and parameters"),
        ({"cnn": {"width": BILLION}}, "too large"),
        ({"vit": {"dim": BILLION}}, "too large"),
        ({"resnet": {"width": 10**7}}, "parameters, 4,096 GiB"),
    ],
)
def test_a_model_out_of_all_bounds_is_refused_while_it_is_built(model, what, monkeypatch):
    monkeypatch.setattr(bounds, "PARTS", 1000)
    error = refused({"a": {"model": model}})
    assert error.where == "agents.a.model" and what in error.what


def test_building_ends_with_the_first_part_too_many(monkeypatch):
    monkeypatch.setattr(bounds, "PARTS", 1000)
    made = 0

    class Part(nn.Module):
        def __init__(self):
            nonlocal made
            super().__init__()
            made += 1
            self.inner = nn.Identity()

    with pytest.raises(MeshError, match="modules and parameters") as caught, bounded("agents.a.model"):
        nn.ModuleList([Part() for _ in range(10**12)])
    assert made == 1001 and caught.value.where == "agents.a.model"
    Part()  # nothing counts any more


def test_another_error_of_a_model_stays_its_own():
    with pytest.raises(RuntimeError, match="of its own"), bounded("x"):
        raise RuntimeError("a fault of its own")


@pytest.mark.parametrize("name", ["num_hidden_layers", "num_attention_heads", "num_labels", "num_experts"])
@pytest.mark.parametrize("number", [10_001, BILLION, 10**40])
def test_a_configuration_with_absurdly_many_parts_is_refused_before_it_is_made(tmp_path, name, number):
    with pytest.raises(MeshError) as caught:
        make_config({"model_type": "qwen2_moe", name: number}, {})
    assert (caught.value.where, caught.value.what) == (f"model.hf.config.{name}", f"{name} is {number:,}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_moe", name: number}))
    with pytest.raises(MeshError, match=f"{name} is "):
        read_config(str(tmp_path), None, False, {})
    nested = {"model_type": "qwen2_moe", "text_config": {name: number}}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    with pytest.raises(MeshError, match=f"text_config.{name}"):
        read_config(str(tmp_path), None, False, {})


COUNTS = ["epochs", "steps", "batch_size", "accumulate", "evaluate_every"]


@pytest.mark.parametrize("number", [BILLION + 1, 2**62])
def test_absurd_counts_are_refused_at_their_place(number):
    for name in COUNTS:
        for own in ({"train": {name: number}}, {"agents": {"a": {**SMALL, "train": {name: number}}}}):
            fields = {"agents": {"a": SMALL}, **own}
            with pytest.raises(MeshError) as caught:
                parse({"data": "digits", **fields})
            assert caught.value.where.endswith(f"train.{name}") and f"found {number}" in caught.value.what


@pytest.mark.parametrize("number", [1025, 100_000, BILLION])
def test_absurd_threads_are_refused_as_torch_would_end_the_process(number):
    with pytest.raises(MeshError) as caught:
        parse({"data": "digits", "agents": {"a": SMALL}, "train": {"threads": number}})
    assert caught.value.where == "train.threads" and "1024" in caught.value.instead


def test_what_this_machine_has_is_read_from_the_system():
    room = sizes.machine()
    assert room.cpus >= 1 and room.memory > 2**28
    assert replace(room, memory=0.0).memory == 0
