"""Rules that abstain, count and go by the time, and statistics of streams: inline and on Ray, to equal bits."""

from __future__ import annotations

import json

import pytest

from kdmesh.cli import main

pytestmark = pytest.mark.ray

PLUGIN = '''
import torch
from torch.nn import functional as F

from kdmesh import hookimpl
from kdmesh.consensus import Abstaining, Rule, weighted_sum
from kdmesh.objectives import Objective
from kdmesh.offers import ConsensusOffer, ObjectiveOffer, SignalOffer


class Asked(Abstaining):
    """A vote that answers 200 queries, and then none; no paper."""

    def __init__(self):
        super().__init__()
        self.register_buffer("asked", torch.zeros((), dtype=torch.int64))

    def forward(self, values, *, logits, labels=None, present=None, ids=None):
        number = self.asked + torch.arange(len(ids))
        self.asked += len(ids)
        votes = F.one_hot(values.argmax(-1), values.shape[-1]).sum(0) + 0.1 * (number % 7 == ids % 7)[:, None]
        return votes / votes.sum(-1, keepdim=True), number < 200

    def report(self):
        return {"asked": int(self.asked)}


class Turning(Rule):
    """From the first source to the others, as time goes by; no paper."""

    def forward(self, values, *, logits, labels=None, present=None, step=0, epoch=0):
        shares = torch.full(values.shape[:2], 1 / (len(values) + step + epoch))
        shares[0] = 1 - shares[1:].sum(0)
        return weighted_sum(values, shares)


class ClassMeans:
    """The mean of the logits for each class, and which classes there are; no paper."""

    def __call__(self, value, *, labels, classes):
        counts = torch.bincount(labels, minlength=classes)
        return value.new_zeros(classes, classes).index_add(0, labels, value) / counts.clamp(min=1)[:, None], counts > 0


class ToMean(Objective):
    """The squared distance from the mean of the own class; no paper."""

    def forward(self, student, target, *, form="logits", weights=None, labels=None):
        return (student - target[labels]).square().sum(1).mean()


@hookimpl
def kdmesh_signals():
    needs = ("labels", "classes")
    return [SignalOffer("own_means", f"{__name__}:ClassMeans", form="logits", needs=needs, aligned=False)]


@hookimpl
def kdmesh_objectives():
    return [ObjectiveOffer("to_mean", f"{__name__}:ToMean", forms=("logits",), needs=("labels",), aligned=False)]


@hookimpl
def kdmesh_consensus():
    more = {"stateful": True, "abstains": True, "needs": ("ids",)}
    return [
        ConsensusOffer("asked", f"{__name__}:Asked", spaces=("probs",), **more),
        ConsensusOffer("turning", f"{__name__}:Turning", needs=("step", "epoch")),
    ]
'''
MESH = {
    "streams": {"half": {"size": 0.5}, "rest": {"rest_of": "half"}},
    "data": {"dataset": "digits", "train": 150, "validation": 40, "test": 40},
    "agents": {name: {"model": {"mlp": {"hidden": [8]}}} for name in ("a", "b", "s", "z")},
    "train": {"epochs": 2, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.5}}},
}


def flows(refresh):
    whole = "epoch" if refresh == "step" else refresh
    return [
        {"from": "a", "to": "means", "signal": "own_means", "stream": "half", "refresh": whole},
        {"from": "b", "to": "means", "signal": "own_means", "stream": "rest", "refresh": whole},
        {"from": "means", "to": ["s", "z"], "objective": "to_mean", "weight": 0.01},
        {"from": "labels", "to": ["a", "b"], "objective": "ce"},
        {"from": ["a", "b"], "to": "counts", "refresh": refresh},
        {"from": ["a", "b"], "to": "agrees", "refresh": refresh},
        {"from": ["a", "b"], "to": "turns", "refresh": refresh},
        {"from": ["counts", "agrees", "turns"], "to": ["s", "z"], "objective": "kl"},
    ]


@pytest.mark.parametrize(("refresh", "queries"), [("step", 300), ("once", 150), ("epoch", 150)])
def test_bits_and_counts_do_not_depend_on_backend_and_placement(tmp_path, monkeypatch, refresh, queries):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / f"asking_{refresh}.py").write_text(PLUGIN)
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(plugins))
    mesh = {
        **MESH,
        "consensus": {
            "counts": "asked",
            "agrees": {"threshold_vote": {"votes": 2}},
            "turns": "turning",
            "means": "mean",
        },
        "flows": flows(refresh),
    }
    (tmp_path / "mesh.yaml").write_text(json.dumps(mesh))
    found = []
    for backend, placement in (("inline", "together"), ("inline", "spread"), ("ray", "spread")):
        out = tmp_path / backend / placement
        command = ["run", str(tmp_path / "mesh.yaml"), "--backend", backend, "--set", f"placement={placement}"]
        assert main([*command, "--out", str(out)]) == 0
        (summary,) = out.glob("*/*/summary.json")
        told = json.loads(summary.read_text())
        nodes = {
            name: (one.get("report"), one.get("answered"), one["metrics"]) for name, one in told["consensus"].items()
        }
        found.append(({name: one["weights_sha256"] for name, one in told["agents"].items()}, nodes))
        state = summary.parent / "consensus" / "counts" / "model.safetensors"
        found[-1][1]["state"] = state.read_bytes()
    assert found[0] == found[1] == found[2]
    assert found[0][1]["counts"][0] == {"asked": queries}
    assert 0 < found[0][1]["agrees"][1]["test"]["coverage"] < 1
