"""A short, seeded part of `make chaos`: hosts die, and the weights are those of an unbroken run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import points
import pytest

from kdmesh.engine.launch import Request, run_once

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.backends import Session

# By the calls of an unbroken run: an exchange, a checkpoint, a publication, a measurement; and two hosts in one run.
CASES = {
    "deep-mutual": [points.Point("host1", "run", 100, after=True), points.Point("host2", "save", 3, after=False)],
    "council": [points.Point("students", "receive", 4, after=False), points.Point("one", "publish", 1, after=True)],
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


def test_points_are_drawn_by_a_seed() -> None:
    seen = Counter({("a", "run"): 5, ("b", "run"): 3, ("b", "save"): 1})
    drawn = points.draw(seen, 6, seed=1)
    assert drawn == points.draw(seen, 6, seed=1) != points.draw(seen, 6, seed=2)
    assert all(1 <= point.number <= seen[point.host, point.method] for point in drawn)
