"""A party apart that trains privately: the bits of a simulation, and neither gradient nor draw is sent."""

from __future__ import annotations

import numpy as np
from test_gatekeeper import Room, hosted, one_at_a_time
from test_participation import Leaving, rounds_of

from kdmesh.backends.parties import PartiesBackend
from kdmesh.contracts.events import RoundFinished
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


AVERAGED = {
    **MESH,
    "agents": {**MESH["agents"], "server": {"model": {"mlp": {"hidden": [8]}}, "update": "merged"}},
    "connect": [],
    "flows": [
        {"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own", "lesson": "own"},
        {"from": ["a", "b"], "to": "server", "as": "weights", "refresh": "round"},
        {"from": "server", "to": ["a", "b"], "as": "weights", "refresh": "round"},
    ],
    "program": [
        {
            "of": ["a", "b", "server"],
            "repeat": 4,
            "do": [{"publish": ["server"]}, {"lesson": "own", "steps": 3}, {"publish": ["a", "b"]}],
        }
    ],
    "train": {"batch_size": 20},
    "participation": {"quorum": 1},
}


def test_who_is_lost_in_a_round_comes_back_with_other_weights_and_pays_for_both(tmp_path):
    """Its steps of the round that was lost are another's than those it makes once it has what others learned since."""
    spec = parse(AVERAGED)
    accounts.create(make_plan(spec, registry()), tmp_path / "privacy")
    members = {name: Member(spec, name, tmp_path / name, privacy=tmp_path / "privacy" / name) for name in spec.parties}
    room = Room(members)
    room.members = {name: Leaving(member) for name, member in members.items()}
    one_at_a_time(room)
    south = room.members["south"]

    def watch(event):
        if isinstance(event, RoundFinished) and event.round == 2:
            if "south" in event.attended:
                south.gone = True
            else:
                south.back()

    backend = PartiesBackend(room)
    request = Request(spec, hosted=backend, out=tmp_path / "runs", report=False, listeners=(watch,))
    summary = run_once(request, session=hosted(backend))[0]
    assert rounds_of(summary) == [["north", "south"], ["north"], ["north", "south"], ["north", "south"]]
    charged = [sum(len(line.charge.queries) for line in read(tmp_path / "privacy" / name / "ledger").lines)
               for name in ("north", "south")]  # fmt: skip
    assert charged == [15, 12]  # of both attempts at the second round; the ledger is ahead of the weights, never behind
    spec = parse({**AVERAGED, "participation": {"attendance": rounds_of(summary)}})
    again = run_once(Request(spec, "inline", privacy=tmp_path / "privacy"))[0]
    assert {name: one["weights_sha256"] for name, one in again["agents"].items()} == {
        name: one["weights_sha256"] for name, one in summary["agents"].items()
    }
    assert [sum(len(line.charge.queries) for line in read(tmp_path / "privacy" / name / "ledger").lines)
            for name in ("north", "south")] == charged  # fmt: skip
