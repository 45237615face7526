"""A party apart that trains privately: the bits of a simulation, and neither gradient nor draw is sent."""

from __future__ import annotations

import numpy as np
from test_gatekeeper import Room, hosted, one_at_a_time

from kdmesh.backends.parties import PartiesBackend
from kdmesh.engine import accounts
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.parties.member import Member
from kdmesh.plugins import registry
from kdmesh.privacy.ledger import read
from kdmesh.privacy.mechanisms.dp_sgd import DPSGD
from kdmesh.privacy.steps import Charged
from kdmesh.spec.read import parse

DP = {"private": {"noise_multiplier": 1.5, "max_grad_norm": 1.0}}
MESH = {
    "data": {"dataset": "digits", "transfer": 0.3, "train": 200, "validation": 40, "test": 40, "stratify": False},
    "streams": {"own": {"of": "train", "shards": {"of": ["a", "b"]}, "private": True}},
    "agents": {name: {"model": {"mlp": {"hidden": [8]}}, "train": DP} for name in "ab"},
    "parties": {
        name: {"agents": [agent], "privacy": {"epsilon": 8, "delta": 1e-5, "adjacency": "zero_out"}}
        for name, agent in (("north", "a"), ("south", "b"))
    },
    "connect": [{"rounds": {"students": ["a", "b"], "rounds": 2, "labels_stream": "own"}}],
    "train": {"batch_size": 20, "epochs": 1},
}


def test_over_links_it_has_the_bits_of_a_simulation_and_pays_once_for_both(tmp_path, monkeypatch):
    spec = parse(MESH)
    accounts.create(make_plan(spec, registry()), tmp_path / "privacy")
    sums, draw = [], Charged.draw

    def add(self, gradients):
        sums.append(real(self, gradients))
        return sums[-1]

    def drawn(self, where, step, count):
        found = draw(self, where, step, count)
        sums.append(found)
        return found

    real = DPSGD.sum
    expected, _, _ = run_once(Request(spec, "inline", privacy=tmp_path / "privacy"))
    spent = {name: read(tmp_path / "privacy" / name / "ledger").head for name in spec.parties}
    monkeypatch.setattr(DPSGD, "sum", add)
    monkeypatch.setattr(Charged, "draw", drawn)
    room = Room({
        name: Member(spec, name, tmp_path / name, privacy=tmp_path / "privacy" / name) for name in spec.parties
    })  # fmt: skip
    backend = PartiesBackend(room)
    one_at_a_time(room)
    summary, _, _ = run_once(Request(spec, hosted=backend), session=hosted(backend))
    for name in "ab":
        bits = [run["agents"][name]["weights_sha256"] for run in (expected, summary)]
        assert bits[0] == bits[1] != ""
    assert summary["privacy"] == expected["privacy"] and summary["privacy"]["north"]["answers"] > 0
    assert {name: read(tmp_path / "privacy" / name / "ledger").head for name in spec.parties} == spent
    sent = b"".join(part for link in room.members.values() for part in link.sent)
    hidden = [one for one in sums if len(one) >= 8]
    assert len(hidden) > 10
    for one in hidden:
        for kind in (np.int64, np.int32, np.float32, np.float64):
            assert one.astype(kind).tobytes()[:64] not in sent
