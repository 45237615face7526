"""The same engine on a GPU, and with agents of one host on unequal devices. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

MESH = {
    "data": "digits",
    "agents": {
        "t": {"model": {"cnn": {"width": 8}}},
        "u": {"model": {"mlp": {"hidden": [64]}}, "train": {"device": "cpu"}},
        "a": {"model": {"mlp": {"hidden": [32]}}, "view": {"augment": [{"noise": {"std": 0.1}}, {"shift": {}}]}},
        "b": {"model": {"mlp": {"hidden": [32]}}, "train": {"precision": "bf16"}},
    },
    "connect": [
        {"ensemble": {"teachers": ["t", "u"], "students": ["a", "b"], "labels": 1.0, "weight": 1.0}},
        {"mutual": {"peers": ["a", "b"]}},
    ],
    "train": {"epochs": 4, "device": "cuda:0"},
}


def test_a_mesh_trains_on_a_gpu_beside_the_cpu():
    summary, _, _ = run_once(Request(parse(MESH), "inline"))
    assert all(agent["metrics"]["test"]["accuracy"] > 0.5 for agent in summary["agents"].values())
