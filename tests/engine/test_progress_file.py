"""How far a run is, as its folder tells those who watch from elsewhere."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from kdmesh.contracts.events import SCHEMA, PartStarted, Progress, RunFinished, StageFinished
from kdmesh.contracts.events import read as event_of
from kdmesh.engine import progress
from kdmesh.engine.progress import EVERY, SHARE, Written


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def test_it_has_the_part_and_each_stage_and_goes_away_at_the_end(tmp_path, clock):
    path = tmp_path / "progress.json"
    path.write_text("left by a kill")
    written = Written(path)
    assert not path.exists()
    part = PartStarted("seed 0", 1, 2, 0, 9)
    written(part)
    clock[0] += EVERY
    for event in (Progress("a", 1, 9, {"x": 0.5}), RunFinished(1.0, None)):
        written(event)
    found = json.loads(path.read_text())
    assert found["schema"] == SCHEMA and event_of(found["part"]) == part
    assert [event_of(one) for one in found["stages"]] == [Progress("a", 1, 9, {"x": 0.5})]
    written(StageFinished("a", "spent", 1.0))
    clock[0] += EVERY
    written(Progress("b", 1, 9, {}))
    assert [one["stage"] for one in json.loads(path.read_text())["stages"]] == ["b"]
    written.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("cost", "wait"), [(0.0, EVERY), (0.1, 0.1 * SHARE)])
def test_a_slow_disk_takes_its_small_share_of_the_time(tmp_path, clock, monkeypatch, cost, wait):
    written, times = Written(tmp_path / "progress.json"), []

    def write():
        times.append(clock[0])
        clock[0] += cost

    monkeypatch.setattr(written, "_write", write)
    for step in range(4000):
        clock[0] += 0.01
        written(Progress("a", step, 4000, {}))
    assert len(times) > 1 and min(b - a for a, b in pairwise(times)) >= wait + cost - 1e-6


def test_a_disk_that_takes_it_not_ends_nothing(tmp_path):
    written = Written(tmp_path / "none" / "progress.json")
    written(Progress("a", 1, 9, {}))
    written.close()
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_nobody_counted_may_be_done():
    """The control of a student with one teacher, by its best teacher, is none."""
    told = []
    parts = progress.Progress((told.append,), {"seed 0": 4, "seed 1": 5})
    parts.begin("seed 0")
    parts.done("seed 0")
    parts.done("seed 0, s by the best teacher only")
    parts.begin("seed 1")
    assert [(event.part, event.behind, event.ahead) for event in told] == [("seed 0", 0, 5), ("seed 1", 4, 0)]
