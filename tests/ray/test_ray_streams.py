"""What streams and consensus nodes declare is the same on one host, on several, on Ray, and after a host was lost."""

from __future__ import annotations

from typing import Any

import pytest
from commands import kill

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse

pytestmark = pytest.mark.ray

HOSTS = {"left": ["a"], "right": ["b", "c"]}
AGENTS = {name: {"model": {"mlp": {"hidden": [8]}}} for name in "abc"}
EVERY = ["a", "b", "c"]
BASE = {
    "data": {"dataset": "digits", "train": 150, "validation": 40, "test": 40},
    "agents": AGENTS,
    "train": {"batch_size": 32, "epochs": 2, "optimizer": {"sgd": {"lr": 0.2}}},
}
PUBLIC = {
    **BASE,
    "streams": {
        "public": {"size": 60},
        "own": {"rest_of": "public", "private": True, "shards": {"by": "dirichlet", "alpha": 1, "of": EVERY}},
    },
    "consensus": {"agreed": {"rule": "mean", "space": "logits"}},
    "flows": [
        {"from": "labels", "to": EVERY, "objective": "ce", "stream": "public", "lesson": "public"},
        {"from": "labels", "to": EVERY, "objective": "ce", "stream": "own", "lesson": "own"},
        {"from": EVERY, "to": "agreed", "stream": "public", "refresh": "round"},
        {"from": "agreed", "to": EVERY, "objective": "mae", "lesson": "digest"},
    ],
    "program": [
        {"of": EVERY, "lesson": "public", "epochs": 1},
        {
            "of": EVERY,
            "repeat": 2,
            "do": [
                {"publish": EVERY, "to": "agreed"},
                {"lesson": "digest", "epochs": 1},
                {"lesson": "own", "epochs": 1},
            ],
        },
    ],
}
"""Labels that all parties see, and of the rest each its own, which nothing of leaves it: FedMD."""

KEPT = {
    **BASE,
    "consensus": {"agreed": "median"},
    "flows": [
        {"from": "labels", "to": ["a", "b"], "objective": "ce"},
        {"from": ["a", "b"], "to": "agreed", "refresh": "2 steps"},
        {"from": "agreed", "to": ["c", "a"], "objective": "kl", "refresh": "3 steps"},
    ],
}
"""A consensus that is made anew less often than its sources publish."""

MESHES = {"public": PUBLIC, "kept": KEPT}


def outcome(summary: dict[str, Any]) -> Any:
    nodes = {name: (node.get("report"), node["metrics"]) for name, node in summary["consensus"].items()}
    agents = {name: (one["weights_sha256"], one["forwards"], one["metrics"]) for name, one in summary["agents"].items()}
    return agents, nodes


@pytest.mark.parametrize("name", MESHES)
def test_bits_are_those_of_one_host(name, ray_session, tmp_path, monkeypatch):
    one, several = (parse({**MESHES[name], "placement": placement}) for placement in ("together", HOSTS))
    inline = outcome(run_once(Request(one, "inline"))[0])
    assert outcome(run_once(Request(several, "inline"))[0]) == inline
    assert outcome(run_once(Request(several), session=ray_session)[0]) == inline
    backend, inner, runs, lost = ray_session.backend, ray_session.backend.call, [], []

    def call(host, method, *args, **options):
        runs.extend([host] if method == "run" else [])
        if len(runs) == 7 and not lost:
            lost.append("right")
            kill(backend._hosts["right"])
        return inner(host, method, *args, **options)

    monkeypatch.setattr(backend, "call", call)
    request = Request(several, out=tmp_path, checkpoint_seconds=0)
    assert outcome(run_once(request, session=ray_session)[0]) == inline
    assert lost == ["right"]
