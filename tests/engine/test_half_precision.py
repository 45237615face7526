"""`precision: fp16`: forwards under autocast, scaled losses, and updates that are left out where gradients overflow."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import kdmesh
from kdmesh.errors import MeshError

DATA = {"dataset": "digits", "train": 64, "validation": 32, "test": 32}
SGD = {"sgd": {"lr": 0.05, "momentum": 0.9}}


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def mesh(module: nn.Module, weight: float = 1.0, **train: Any) -> kdmesh.Mesh:
    """One agent that learns from labels, a batch an epoch."""
    base = {"epochs": 6, "batch_size": 64, "optimizer": SGD, "precision": "fp16"}
    made = kdmesh.Mesh(data=DATA, train={**base, **train})
    made.agent("a", module)
    made.flow("labels", "a", objective="ce", weight=weight)
    return made


def plain(made: kdmesh.Mesh, module: nn.Module, weight: float, clip: float | None) -> tuple[nn.Module, int]:
    """What torch's own loop does on the same batches: the module, and how many updates were left out."""
    from kdmesh.engine.check import examine
    from kdmesh.graph.planner import make_plan
    from kdmesh.plugins import registry
    from kdmesh.spec.read import parse
    from kdmesh.streams.order import epoch_order

    plan = make_plan(parse(made._fields), registry())
    checked = examine(plan, dict(made._modules))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, fused=True)
    scaler, left_out = torch.amp.GradScaler("cpu"), 0
    rows = checked.streams["train"].rows
    for epoch in range(6):
        order = rows[epoch_order(plan.spec.seed, "train", epoch, len(rows))]
        x, y = checked.table.x[order], checked.table.y[order]
        with torch.autocast("cpu", torch.float16):
            logits = module(x)
        loss = cross_entropy(logits.float(), y) * weight
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        left_out += scaler.get_scale() < before
    return module, left_out


@pytest.mark.parametrize(("weight", "clip", "some"), [(1.0, None, False), (1.0, 0.5, False), (1e4, 0.5, True)])
def test_it_is_torchs_own_loop(weight: float, clip: float | None, some: bool) -> None:
    """To equal bits, also where gradients overflow: then the first updates are left out."""
    module = net()
    made = mesh(deepcopy(module), weight, **({} if clip is None else {"clip": clip}))
    expected, left_out = plain(made, module, weight, clip)
    ended = made.run(backend="inline")
    for name, value in expected.state_dict().items():
        assert ended["a"].module.state_dict()[name].equal(value), name
    notes = [note for note in ended.summary["notes"] if "overflowed in fp16" in note]
    assert (left_out > 0) is some
    assert len(notes) == some
    if some:
        assert notes[0].startswith(f"a: {left_out} updates were left out, beside {6 - left_out} that were made")
    assert ended.summary["agents"]["a"]["updates"] == 6 - left_out


def test_broken_off_it_ends_with_equal_bits(tmp_path: Path) -> None:
    """The scale is in the checkpoint: a run that was longer from the start ends with the weights of a longer one."""
    given: dict[str, Any] = {"weight": 1e4, "accumulate": 2, "batch_size": 16, "clip": 0.5}
    short = mesh(net(), epochs=2, **given).run(backend="inline", out=tmp_path)
    on = mesh(net(), epochs=2, **given).run(backend="inline", resume=short.folder, epochs=4)
    once = mesh(net(), epochs=4, **given).run(backend="inline")
    assert on["a"].weights_sha256 == once["a"].weights_sha256
    assert on.summary["agents"]["a"]["updates"] == once.summary["agents"]["a"]["updates"] < 8


def test_what_was_saved_answers_in_that_precision(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "data": DATA,
        "agents": {"a": {"model": {"mlp": {"hidden": [16]}}}},
        "train": {"epochs": 2, "precision": "fp16"},
    }
    ended = kdmesh.Mesh(**fields).run(backend="inline", out=tmp_path)
    assert ended.summary["agents"]["a"]["export"]["difference"] == 0.0
    found = kdmesh.load(ended.folder / "agents" / "a").predict(torch.rand(3, 1, 8, 8))
    assert found.probabilities.shape == (3, 10)


def test_refused() -> None:
    """Where scales would differ, and where weights are in float16."""
    peers = [{"from": "a", "to": "b", "objective": "kl", "refresh": "step", "detach": False}]
    agents = {name: {"model": {"mlp": {"hidden": [8]}}} for name in "ab"}
    labels = [{"from": "labels", "to": ["a", "b"], "objective": "ce"}]
    both = kdmesh.Mesh(data=DATA, agents=agents, flows=[*labels, *peers], train={"epochs": 1, "precision": "fp16"})
    with pytest.raises(MeshError, match=r"gradients pass between a and b.* computes in fp16"):
        both.run(backend="inline")
    with pytest.raises(MeshError, match="these are in float16"):
        mesh(Halved()).run(backend="inline")


class Halved(nn.Module):
    """A model with weights in float16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10).half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, in float32."""
        return self.layer(x.flatten(1).half()).float()
