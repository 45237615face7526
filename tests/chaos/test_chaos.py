"""A short, seeded part of `make chaos`: hosts die, and the weights are those of an unbroken run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import points
import pytest

from kdmesh.engine.launch import Request, run_once
from kdmesh.graph.plan import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.backends import Session
    from kdmesh.spec import MeshSpec

# By the calls of an unbroken run: an exchange, a checkpoint, a publication, a measurement; two hosts; the only one.
CASES = {
    "deep-mutual": [points.Point("host1", "run", 100, after=True), points.Point("host2", "save", 3, after=False)],
    "council": [points.Point("students", "receive", 4, after=False), points.Point("one", "publish", 1, after=True)],
    "mean-teacher": [points.Point("host0", "run", 2, after=True)],
}


@pytest.mark.ray
@pytest.mark.parametrize("name", CASES)
def test_hosts_that_die_change_no_bit(name: str, tmp_path: Path, ray_session: Session) -> None:
    spec = points.mesh(name)
    expected = points.outcome(run_once(Request(spec, "inline"))[0])
    events: Counter[str] = Counter()
    listen = (lambda event: events.update([event["event"]]),)
    with points.deaths(tmp_path / "points", tuple(CASES[name])), points.own_actors(ray_session):
        request = Request(spec, checkpoint_seconds=0.5, listeners=listen)
        summary, _, _ = run_once(request, session=ray_session)
    assert points.outcome(summary) == expected
    assert events["host_lost"] == len(CASES[name]) == len(list((tmp_path / "points").glob("died-*")))


@pytest.mark.ray
def test_a_teacher_that_is_dropped_leaves_the_others_as_if_it_had_never_been(
    tmp_path: Path, ray_session: Session
) -> None:
    """Its host dies when the student's stage begins; the student hears the mean of those that are left."""
    never, spec = ensemble("t1", "t3"), ensemble("t1", "t2", "t3")
    expected = run_once(Request(never, "inline"))[0]
    (host,) = [host for host, agents in make_plan(spec, registry()).hosts.items() if agents == ["t2"]]
    told: list[dict[str, Any]] = []
    with (
        points.deaths(tmp_path / "points", (points.Point(host, "publish", 1, after=False),)),
        points.own_actors(ray_session),
    ):
        request = Request(spec, out=tmp_path / "runs", listeners=(told.append,))
        summary, folder, _ = run_once(request, session=ray_session)
    assert [event["agents"] for event in told if event["event"] == "dropped"] == [["t2"]]
    assert folder is not None and (folder.root / "drops.json").exists()
    agents = summary["agents"]
    assert agents["t2"]["dropped"] and agents["t2"]["weights_sha256"] is None
    assert {name: agents[name]["weights_sha256"] for name in expected["agents"]} == {
        name: agent["weights_sha256"] for name, agent in expected["agents"].items()
    }


def ensemble(*teachers: str) -> MeshSpec:
    """Teachers that say `drop` and a student, apart."""
    model = {"model": {"mlp": {"hidden": [8]}}}
    return parse(
        {
            "name": "ensemble",
            "data": {"dataset": "digits", "train": 200},
            "agents": {**{name: {**model, "on_loss": "drop"} for name in teachers}, "s": model},
            "connect": [{"ensemble": {"teachers": list(teachers), "students": ["s"]}}],
            "train": {"epochs": 2},
            "placement": "spread",
        }
    )


def test_points_are_drawn_by_a_seed() -> None:
    seen = Counter({("a", "run"): 5, ("b", "run"): 3, ("b", "save"): 1})
    drawn = points.draw(seen, 6, seed=1)
    assert drawn == points.draw(seen, 6, seed=1) != points.draw(seen, 6, seed=2)
    assert all(1 <= point.number <= seen[point.host, point.method] for point in drawn)
