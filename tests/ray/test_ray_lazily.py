"""Data that are not in memory, on hosts of Ray: each reads its own, and what comes out has the bits of one host."""

from __future__ import annotations

import pytest
from commands import kill
from lazy_sets import LATER, dataset, later, mesh

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse

pytestmark = pytest.mark.ray

HOSTS = {"left": ["a"], "right": ["b"]}


def outcome(summary):
    return {name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()}


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=pytest.mark.slow if form in ("texts", "tables") else []) for form in LATER]
)
def test_bits_are_those_of_data_in_memory_and_a_host_may_be_lost(form, ray_session, tmp_path, monkeypatch):
    data = dataset(form, tmp_path)
    memory = outcome(run_once(Request(parse(mesh(form, data)), "inline"))[0])
    spec = mesh(form, later(form, data), placement=HOSTS)
    backend, inner, runs, lost = ray_session.backend, ray_session.backend.call, [], []

    def call(host, method, *args, **options):
        runs.extend([host] if method == "run" else [])
        if len(runs) == 5 and not lost:
            lost.append("right")
            kill(backend._hosts["right"])  # by SIGKILL, with all that it had open
        return inner(host, method, *args, **options)

    monkeypatch.setattr(backend, "call", call)
    request = Request(parse(spec), out=tmp_path / "out", checkpoint_seconds=0)
    assert outcome(run_once(request, session=ray_session)[0]) == memory
    assert lost == ["right"]
