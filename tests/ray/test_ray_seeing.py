"""What agents see of others crosses between hosts, and outlives the loss of one: to equal bits."""

from __future__ import annotations

import pytest
import seeing
from commands import kill

from kdmesh.engine import teach
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse

pytestmark = pytest.mark.ray

DATA = {"dataset": "digits", "train": 96, "validation": 40, "test": 40}


def live(placement, data):
    return seeing.split(placement, data, detach=True, epochs=6)


def outcome(summary):
    return {name: (one["weights_sha256"], one["forwards"], one["metrics"]) for name, one in summary["agents"].items()}


@pytest.mark.parametrize(
    ("mesh", "hosts", "lost"),
    [
        (seeing.gkt, {"left": ["one", "two"], "right": ["on_one", "on_two"]}, ("right", "left")),
        pytest.param(live, {"left": ["body"], "right": ["head"]}, ("left",), marks=pytest.mark.slow),
    ],
)
def test_two_hosts_on_ray_give_the_bits_of_one(mesh, hosts, lost, ray_session, tmp_path, monkeypatch):
    monkeypatch.setattr(teach, "WINDOW", 2)
    monkeypatch.setattr(teach, "SECONDS", 0.0)
    inline = run_once(Request(parse(mesh("together", DATA)), "inline"))[0]
    spec = parse(mesh(hosts, DATA))
    assert outcome(run_once(Request(spec), session=ray_session)[0]) == outcome(inline)
    backend, inner, runs, gone = ray_session.backend, ray_session.backend.call, [], []

    def call(host, method, *args, **options):
        runs.extend([host] if method == "run" else [])
        if len(gone) < len(lost) and len(runs) >= 5 * (len(gone) + 1):
            gone.append(lost[len(gone)])
            kill(backend._hosts[gone[-1]])
        return inner(host, method, *args, **options)

    monkeypatch.setattr(backend, "call", call)
    request = Request(spec, out=tmp_path, checkpoint_seconds=0)
    assert outcome(run_once(request, session=ray_session)[0]) == outcome(inline)
    assert tuple(gone) == lost
