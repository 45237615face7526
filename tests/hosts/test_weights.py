"""Optimisers, schedules and initial weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdmesh.errors import MeshError
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.modules import load_weights, output
from kdmesh.hosts.optimizers import make_optimizer, make_schedule
from kdmesh.imports import import_path
from kdmesh.spec import TrainSpec


def settings(**fields: Any) -> TrainSpec:
    return TrainSpec.model_validate(fields)


def optimizer(**fields: Any) -> torch.optim.Optimizer:
    return make_optimizer([nn.Parameter(torch.zeros(2))], settings(**fields), "train")


def rates(schedule: Any, updates: int, lr: float = 1.0) -> list[float]:
    made = optimizer(optimizer={"sgd": {"lr": lr}})
    moving = make_schedule(made, settings(schedule=schedule).schedule, updates, "train")
    found = []
    for _ in range(updates):
        found.append(made.param_groups[0]["lr"])
        made.step()
        moving.step()
    return found


@pytest.mark.parametrize("name", ["adamw", "AdamW", "sgd", "adam", "adagrad"])
def test_any_optimiser_of_torch_fused_where_there_is_such_a_kernel(name: str) -> None:
    made = optimizer(optimizer={name: {"lr": 0.1}})
    assert made.defaults["fused"] and made.param_groups[0]["lr"] == 0.1


def test_little_is_left_to_import_for_the_first_optimiser() -> None:
    code = """
import sys
import torch
from kdmesh.hosts.optimizers import load_optimizers, make_optimizer
from kdmesh.spec import TrainSpec
parameter = torch.nn.Parameter(torch.zeros(2))
load_optimizers()
known = set(sys.modules)
optimizer = make_optimizer([parameter], TrainSpec(optimizer={"adamw": {"lr": 0.1}}), "train")
parameter.sum().backward()
optimizer.step()
print(parameter.sum().item(), len(set(sys.modules) - known))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total, new = map(float, done.stdout.split())
    assert total == pytest.approx(-0.2) and new < 10  # it is some 800 modules


def test_an_optimiser_without_a_fused_kernel() -> None:
    assert isinstance(optimizer(optimizer={"rprop": {"lr": 0.1}}), torch.optim.Rprop)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"adamwx": {}}, "did you mean 'adamw'"),
        ({"sgd": {"lrr": 1}}, "no argument 'lrr'"),
        ({"sgd": {"lr": -1}}, "Invalid learning rate"),
    ],
)
def test_what_torch_would_not_take_is_refused(given: Any, message: str) -> None:
    with pytest.raises(MeshError, match=message):
        optimizer(optimizer=given)


def test_schedules_over_so_many_updates() -> None:
    assert rates("linear", 4) == [1.0, 0.75, 0.5, 0.25]
    assert rates({"linear": {"warmup": 2}}, 4) == [0.5, 1.0, 1.0, 0.5]
    assert rates("cosine", 3) == pytest.approx([1.0, 0.75, 0.25])
    assert rates({"StepLR": {"step_size": 2, "gamma": 0.1}}, 4) == pytest.approx([1, 1, 0.1, 0.1])


@pytest.mark.parametrize("given", ["cosin", {"cosine": {"warm": 1}}, {"StepLR": {"size": 2}}])
def test_unknown_schedules_are_refused(given: Any) -> None:
    with pytest.raises(MeshError) as error:
        rates(given, 2)
    assert error.value.where.startswith("train.schedule")


def test_gradients_wait_for_the_update() -> None:
    layer = nn.Linear(1, 1, bias=False)
    weights = LocalWeights("a", layer, settings(optimizer={"sgd": {"lr": 1.0}}))
    weights.start(2)
    before = layer.weight.item()
    for x in (1.0, 2.0):
        weights.zero()
        layer(torch.tensor([[x]])).sum().backward()
    weights.step()
    assert layer.weight.item() == pytest.approx(before - 3.0)
    weights.zero()
    assert layer.weight.grad is None and weights.updates == 1


def test_a_weights_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    layer = nn.Linear(3, 2)
    load_weights(layer, str(tmp_path / "w.safetensors"), "agents.a.weights")
    assert not layer.weight.any()
    for wrong in (nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 2))):
        with pytest.raises(MeshError, match="does not fit this model"):
            load_weights(wrong, str(tmp_path / "w.safetensors"), "agents.a.weights")
    (tmp_path / "bad").write_text("no weights")
    for path in ("bad", "missing"):
        with pytest.raises(MeshError, match="cannot read weights"):
            load_weights(layer, str(tmp_path / path), "agents.a.weights")


def test_import_paths_and_outputs() -> None:
    assert import_path("torch.nn:Linear", "model") is nn.Linear
    for path in ("torch.nn:Lineer", "torch.n:Linear"):
        with pytest.raises(MeshError, match="cannot import"):
            import_path(path, "model")
    value = torch.zeros(1)
    assert output(value) is output((value, None)) is value
