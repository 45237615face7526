"""A stream that an agent writes crosses between hosts, and outlives the loss of one: to equal bits."""

from __future__ import annotations

import pytest
from commands import kill
from near import Near, mesh

from kdmesh.engine import teach
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse

pytestmark = pytest.mark.ray

HOSTS = {"left": ["a", "c"], "right": ["b"]}
DATA = {"dataset": "digits", "train": 96, "validation": 40, "test": 40}


def outcome(summary):
    return {name: (one["weights_sha256"], one["forwards"], one["metrics"]) for name, one in summary["agents"].items()}


class Pixels(Near):
    """The same on images."""

    def write(self, step, agent):
        x, y, ids = super().write(step, agent)
        return x.view(-1, 1, 8, 8), y, ids


@pytest.mark.parametrize("refresh", [pytest.param("step", marks=pytest.mark.slow), "5 steps"])
def test_two_hosts_on_ray_give_the_bits_of_one(refresh, ray_session, tmp_path, monkeypatch):
    monkeypatch.setattr(teach, "WINDOW", 2)
    writers = {"made": Pixels()}
    inline = run_once(Request(parse(mesh(refresh, "together", DATA)), "inline", writers=writers))[0]
    spec = parse(mesh(refresh, HOSTS, DATA))
    assert outcome(run_once(Request(spec, writers=writers), session=ray_session)[0]) == outcome(inline)
    backend, inner, runs, lost = ray_session.backend, ray_session.backend.call, [], []

    def call(host, method, *args, **options):
        runs.extend([host] if method == "run" else [])
        if runs and len(runs) in (7, 17) and len(lost) < len(runs) // 7:
            lost.append(("right", "left")[len(lost)])
            kill(backend._hosts[lost[-1]])
        return inner(host, method, *args, **options)

    monkeypatch.setattr(backend, "call", call)
    request = Request(spec, writers=writers, out=tmp_path, checkpoint_seconds=0)
    assert outcome(run_once(request, session=ray_session)[0]) == outcome(inline)
    assert lost == ["right", "left"]
