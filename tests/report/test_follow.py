"""A run's events, read on from where they were left."""

from __future__ import annotations

import json
import shutil

import pytest

from kdmesh.contracts.events import (
    Evaluated,
    HostLost,
    Note,
    PartStarted,
    Progress,
    RoundFinished,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
)
from kdmesh.report.follow import Follower, Tail, standing

BEGIN = RunStarted("m", 0, "inline", {}, [{"stage": "s", "agents": ["s"], "steps": 40}])


def write(folder, *events, part=None, progress=()):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").touch()
    with (folder / "events.jsonl").open("a") as log:
        log.writelines(json.dumps(event.record()) + "\n" for event in events)
    if progress:
        told = {"part": part and part.record(), "stages": [event.record() for event in progress]}
        (folder / "progress.json").write_text(json.dumps(told))


def texts(events):
    return [event.text for event in events]


def test_a_tail_tells_only_what_is_new_and_whole(tmp_path):
    tail = Tail(tmp_path / "events.jsonl")
    assert tail.new() == ()
    write(tmp_path, Note("a"), Note("b"))
    assert texts(tail.new()) == ["a", "b"] and tail.new() == ()
    line = json.dumps(Note("größer").record(), ensure_ascii=False).encode()
    with tail.path.open("ab") as log:
        log.write(line[:-4])
        log.flush()
        assert tail.new() == ()
        log.write(line[-4:] + b"\n")
    assert texts(tail.new()) == ["größer"]


def test_a_tail_survives_a_log_that_is_away_and_one_that_takes_its_place(tmp_path):
    tail = Tail(tmp_path / "events.jsonl")
    write(tmp_path, Note("a"))
    tail.new()
    tail.path.rename(tmp_path / "aside")
    assert tail.new() == ()
    (tmp_path / "aside").rename(tail.path)
    write(tmp_path, Note("b"))
    assert texts(tail.new()) == ["b"]
    tail.path.rename(tmp_path / "old")
    write(tmp_path, Note("c"))
    assert texts(tail.new()) == ["c"]
    tail.path.write_text(json.dumps(Note("").record()) + "\n")
    assert texts(tail.new()) == [""]
    tail.path.unlink()
    tail.path.mkdir()
    assert tail.new() == ()


def test_events_of_several_seeds_come_in_the_order_in_which_they_were(tmp_path):
    parts = [PartStarted(f"seed {seed}", seed + 1, 2, 40 * seed, 40 - 40 * seed) for seed in range(2)]
    follower = Follower(tmp_path, (0, 1))
    write(tmp_path, parts[0])
    write(tmp_path / "seeds" / "0", Note("0 a"))
    assert follower.new() == [parts[0], Note("0 a")]
    write(tmp_path / "seeds" / "0", Note("0 b"))  # between two looks one part ends, and the next begins
    write(tmp_path, parts[1])
    write(tmp_path / "seeds" / "1", Note("1 a"))
    assert follower.new() == [Note("0 b"), parts[1], Note("1 a")]
    write(tmp_path, Note("seed 1 failed"))
    assert follower.new() == [Note("seed 1 failed")] and follower.new() == []


def test_the_controls_of_one_seed_are_parts_of_its_progress(tmp_path):
    follower = Follower(tmp_path, (0,))
    first = PartStarted("seed 0", 1, 2, 0, 40)
    write(tmp_path, BEGIN, StageStarted("s", ["s"], 40), part=first, progress=[Progress("s", 8, 40, {"s": 0.5}, t=1.0)])
    told = follower.new()
    assert told == [first, BEGIN, StageStarted("s", ["s"], 40), Progress("s", 8, 40, {"s": 0.5}, t=1.0)]
    assert follower.new() == []  # no progress twice
    second = PartStarted("seed 0, s alone", 2, 2, 40, 0)
    write(tmp_path, StageFinished("s", "spent", 1.0), part=second, progress=[Progress("s", 1, 40, {}, t=3.0)])
    write(tmp_path / "controls" / "s-alone", BEGIN)
    assert follower.new() == [
        Progress("s", 40, 40, {}), StageFinished("s", "spent", 1.0), second, BEGIN, Progress("s", 1, 40, {}, t=3.0),
    ]  # fmt: skip


def test_a_stage_that_is_over_gets_no_progress_any_more(tmp_path):
    follower = Follower(tmp_path, (0,))
    write(tmp_path, BEGIN, StageFinished("s", "agreed", 1.0), progress=[Progress("s", 30, 40, {})])
    assert follower.new() == [BEGIN, StageFinished("s", "agreed", 1.0)]
    write(tmp_path, StageStarted("s", ["s"], 40), progress=[Progress("s", 20, 40, {})])  # after a host was lost
    assert follower.new() == [StageStarted("s", ["s"], 40), Progress("s", 20, 40, {})]


@pytest.mark.parametrize("text", ["", "[]", '{"stages": 3}', '{"part": 3, "stages": [3, {"event": "note"}]}', "\0"])
def test_a_progress_that_is_none_is_passed_over(tmp_path, text):
    follower = Follower(tmp_path, (0,))
    write(tmp_path, BEGIN)
    (tmp_path / "progress.json").write_text(text)
    assert follower.new() == [BEGIN]


def test_a_past_of_2_000_rounds_is_told_by_its_last(tmp_path):
    rounds = [RoundFinished("s", number, 2000, {}) for number in range(1, 2001)]
    figures = [Evaluated("s", "s", stream, epoch, {}) for epoch in range(99) for stream in ("validation", "test")]
    before = [PartStarted("seed 0", 1, 2, 0, 9), Note("odd"), BEGIN, HostLost("h", "killed"), RunFinished(1.0, None)]
    now = [PartStarted("seed 1", 2, 2, 9, 0), BEGIN, Note("odd"), *rounds, *figures]
    told = standing([*before, *now])
    assert told == [Note("odd"), HostLost("h", "killed"), *now[:3], rounds[-1], *figures[-2:]]
    assert standing([BEGIN, Note("a"), BEGIN]) == [Note("a"), BEGIN] and standing([]) == []


def test_what_a_real_run_told_is_told_again(made, tmp_path):
    (folder,) = (made / "several").iterdir()
    copied = shutil.copytree(folder, tmp_path / "copied")
    events = Follower(copied, (0, 1)).new()
    parts = [event.part for event in events if isinstance(event, PartStarted)]
    assert parts == [
        f"seed {seed}{which}" for seed in (0, 1) for which in ("", ", s alone", ", s by the best teacher only")
    ]
    assert sum(isinstance(event, RunFinished) for event in events) == 6
    at = events.index(next(event for event in events if isinstance(event, PartStarted) and event.number == 4))
    assert {event.seed for event in events[at:] if isinstance(event, RunStarted)} == {1}
    assert not (folder / "progress.json").exists()
