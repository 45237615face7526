"""Without a backend a run is trained in this process where everyone together is fastest, and says so; else on Ray."""

from __future__ import annotations

from typing import Any

import pytest

from kdmesh.backends import Session
from kdmesh.engine.check import examine
from kdmesh.graph.planner import make_plan
from kdmesh.graph.resources import Resources
from kdmesh.placement import settle
from kdmesh.placement.timing import Timing
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

PEERS = {
    "data": {"dataset": "digits", "train": 64},
    "agents": {name: {"model": {"mlp": {"hidden": [8]}}} for name in "ab"},
    "connect": [{"mutual": {"peers": ["a", "b"]}}],
    "train": {"epochs": 1},
}


def chosen(monkeypatch: pytest.MonkeyPatch, cpus: int = 4, address: str | None = None, **fields: Any) -> Any:
    """The backend of a mesh on a machine of so many CPUs, and what is said of it."""
    monkeypatch.setattr(settle, "machine", lambda: Resources(cpus, 0, 2.0**40))
    plan = make_plan(parse({**PEERS, **fields}), registry())
    session = Session(None, address)
    placed = settle.choose_backend(plan, examine(plan), {}, session, address)
    return session.name, None if placed is None else placed.lines


@pytest.mark.parametrize(
    ("fields", "cpus", "address", "name"),
    [
        ({}, 4, None, "inline"),  # measured: a process more takes longer to start than this trains
        ({}, 1, None, "inline"),
        ({"placement": "together"}, 4, None, "inline"),
        ({"placement": {"one": ["a", "b"]}}, 4, None, "inline"),
        ({"placement": "spread"}, 4, None, "ray"),
        ({"placement": {"one": ["a"], "two": ["b"]}}, 4, None, "ray"),
        ({"placement": {"one": {"agents": ["a", "b"], "resources": {"fast": 1}}}}, 4, None, "ray"),
        ({}, 4, "auto", "ray"),
    ],
)
def test_what_a_file_asks_for_decides(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], cpus: int, address: str | None, name: str
) -> None:
    found, lines = chosen(monkeypatch, cpus, address, **fields)
    assert found == name
    assert lines is None if name == "ray" else len(lines) == 1 and "--backend ray starts Ray" in lines[0]


def test_several_hosts_that_are_faster_are_on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    paces = settle.measure

    def slow(*args: Any) -> Any:
        """A thousand times as long: what a process takes to start counts no more."""
        found = paces(*args)
        return {
            agent: tuple(Timing(*(1000 * part for part in timing)) for timing in both) for agent, both in found.items()
        }

    monkeypatch.setattr(settle, "measure", slow)
    monkeypatch.setattr(settle, "_known", {})
    connect = [{"ensemble": {"teachers": ["a", "b"], "student": "s"}}]
    agents = {name: {"model": {"mlp": {"hidden": [64]}}} for name in "abs"}
    assert chosen(monkeypatch, agents=agents, connect=connect, train={"epochs": 20})[0] == "ray"


def test_a_given_backend_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(parse(PEERS), registry())
    session = Session("ray")
    assert settle.choose_backend(plan, examine(plan), {}, session) is None and session.name == "ray"
