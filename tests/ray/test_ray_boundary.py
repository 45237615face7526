"""What a plugin gives wrongly at a later step, on hosts of a real Ray: the same error as inline, and no traceback."""

from __future__ import annotations

import json

import pytest

from kdmesh.cli import main

pytestmark = pytest.mark.ray

PLUGIN = '''
import math

import torch
from torch import nn

from kdmesh import hookimpl
from kdmesh.consensus import Rule
from kdmesh.objectives import Objective
from kdmesh.offers import ConsensusOffer, ModelOffer, ObjectiveOffer, SignalOffer


class Loss(Objective):
    """Detached from the sixth call on; no paper."""

    calls = 0

    def forward(self, student, target, *, form="logits", weights=None):
        self.calls += 1
        loss = (student - target).square().mean()
        return loss.detach() if self.calls > 5 else loss


class Average(Rule):
    """A column is missing from the sixth call on; no paper."""

    calls = 0

    def forward(self, values, *, logits, labels=None, present=None):
        self.calls += 1
        return values.mean(0)[:, : -1 if self.calls > 5 else None]


class Net(nn.Module):
    """A row is missing from the sixth call on."""

    calls = 0

    def __init__(self, input_shape, classes):
        super().__init__()
        self.layer = nn.Linear(math.prod(input_shape), classes)

    def forward(self, x):
        self.calls += 1
        return self.layer(x.flatten(1))[: -1 if self.calls > 5 else None]


class Soft:
    """In double precision from the sixth call on."""

    calls = 0

    def __call__(self, value):
        self.calls += 1
        return value.softmax(-1).to(torch.float64 if self.calls > 5 else value.dtype)


@hookimpl
def kdmesh_objectives():
    return [ObjectiveOffer("late_loss", f"{__name__}:Loss")]


@hookimpl
def kdmesh_consensus():
    return [ConsensusOffer("late_average", f"{__name__}:Average")]


@hookimpl
def kdmesh_models():
    return [ModelOffer("late_net", f"{__name__}:Net")]


@hookimpl
def kdmesh_signals():
    return [SignalOffer("late_soft", f"{__name__}:Soft")]
'''
MLP = {"mlp": {"hidden": [8]}}
PEERS = [
    {"from": "labels", "to": ["a", "b"], "objective": "ce"},
    {"from": "a", "to": "b", "objective": "kl", "refresh": "step"},
]
COUNCIL = [
    {"from": "labels", "to": ["a", "b"], "objective": "ce"},
    {"from": ["a", "b"], "to": "c", "refresh": "step"},
    {"from": "c", "to": "b", "objective": "kl"},
]
CASES = {
    "objective": ({"flows": [PEERS[0], {**PEERS[1], "objective": "late_loss"}]}, "the objective 'late_loss'"),
    "rule": ({"flows": COUNCIL, "consensus": {"c": "late_average"}}, "the consensus rule 'late_average'"),
    "model": ({"flows": PEERS, "agents": {"a": {"model": "late_net"}, "b": {"model": MLP}}}, "the model 'late_net'"),
    "signal": ({"flows": [PEERS[0], {**PEERS[1], "signal": "late_soft"}]}, "the kind of signal 'late_soft'"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_alike_inline_and_on_ray(tmp_path, monkeypatch, capsys, case):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / f"late_{case}.py").write_text(PLUGIN)
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(plugins))
    fields, whose = CASES[case]
    mesh = {
        "data": {"dataset": "digits", "train": 320, "validation": 40, "test": 40},
        "agents": {"a": {"model": MLP}, "b": {"model": MLP}},
        "train": {"steps": 8, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.5}}},
        "placement": "spread",
        **fields,
    }
    (tmp_path / "mesh.yaml").write_text(json.dumps(mesh))
    said = []
    for backend in ("inline", "ray"):
        out = tmp_path / backend
        assert main(["run", str(tmp_path / "mesh.yaml"), "--backend", backend, "--out", str(out)]) == 1
        told = capsys.readouterr().err
        assert "Traceback" not in told
        said.append(" ".join(told.split("kdmesh: ", 1)[-1].partition("instead:")[0].split()))
    assert whose in said[0]
    assert "at step 5" in said[0]
    assert said[0].partition(whose)[2] == said[1].partition(whose)[2]
