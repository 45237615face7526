from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.engine.events import Events
from kdmesh.errors import RunFailed
from kdmesh.files import plain


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_event_is_one_flat_line_on_disk_before_the_next_begins(tmp_path):
    events = Events(tmp_path / "run" / "events.jsonl")
    events.emit("stage_started", stage="s1", agents=["a", "b"], steps=10)
    (first,) = read(tmp_path / "run" / "events.jsonl")
    assert first["t"] >= 0 and first["t"] == round(first["t"], 3)
    assert first == {"event": "stage_started", "t": first["t"], "stage": "s1", "agents": ["a", "b"], "steps": 10}
    events.emit("note", text="größer\nals")
    assert [event["event"] for event in read(tmp_path / "run" / "events.jsonl")] == ["stage_started", "note"]
    events.close()
    events.close()


def test_time_does_not_run_backwards():
    heard = []
    events = Events()
    events.listeners.append(heard.append)
    for _ in range(5):
        events.emit("note", text="")
    assert [event["t"] for event in heard] == sorted(event["t"] for event in heard)


def test_progress_is_told_but_not_written(tmp_path):
    heard = []
    events = Events(tmp_path / "events.jsonl")
    events.listeners.append(heard.append)
    events.emit("progress", stage="s1", done=1, steps=2, losses={"a": math.nan})
    events.close()
    assert heard[0]["losses"] == {"a": None}
    assert read(tmp_path / "events.jsonl") == []


def test_what_is_not_finite_is_null_and_not_the_word_nan(tmp_path):
    events = Events(tmp_path / "events.jsonl")
    events.emit("evaluated", metrics={"loss": math.inf, "ece": [-math.inf, 0.5]}, folder=Path("runs") / "x")
    events.close()
    (event,) = read(tmp_path / "events.jsonl")
    assert event["metrics"] == {"loss": None, "ece": [None, 0.5]}
    assert event["folder"] == str(Path("runs") / "x")


def test_a_log_that_is_opened_again_is_continued(tmp_path):
    for text in ("before", "after the resume"):
        events = Events(tmp_path / "events.jsonl")
        events.emit("note", text=text)
        events.close()
    assert [event["text"] for event in read(tmp_path / "events.jsonl")] == ["before", "after the resume"]


def test_a_listener_that_raises_is_removed_and_the_others_are_told(tmp_path):
    heard = []

    def broken(event):
        raise ValueError("no terminal")

    events = Events(tmp_path / "events.jsonl")
    events.listeners += [broken, heard.append]
    events.emit("run_started", name="x")
    events.emit("run_finished", seconds=1.0)
    events.close()
    assert sorted(event["event"] for event in heard) == ["note", "run_finished", "run_started"]
    note = next(event for event in heard if event["event"] == "note")
    assert "broken" in note["text"] and "ValueError: no terminal" in note["text"]
    assert [event["event"] for event in read(tmp_path / "events.jsonl")] == ["run_started", "note", "run_finished"]


def test_two_broken_listeners_end_neither_the_run_nor_in_a_loop():
    events = Events()

    def first(event):
        raise RuntimeError("one")

    def second(event):
        raise RuntimeError("two")

    events.listeners += [first, second]
    events.emit("note", text="x")
    assert events.listeners == []


@pytest.mark.parametrize("breaks", [False, True])
def test_closing_closes_listeners(tmp_path, breaks):
    class Display:
        closed = False

        def __call__(self, event):
            pass

        def close(self):
            self.closed = True
            if breaks:
                raise RuntimeError("gone")

    display = Display()
    events = Events(tmp_path / "events.jsonl")
    events.listeners += [display, print]
    events.close()
    assert display.closed and events.listeners == []
    assert len(read(tmp_path / "events.jsonl")) == breaks  # the note


def test_interrupts_pass_through_a_listener():
    def interrupted(event):
        raise KeyboardInterrupt

    events = Events()
    events.listeners.append(interrupted)
    with pytest.raises(KeyboardInterrupt):
        events.emit("note", text="x")


def test_arrays_become_lists_and_their_scalars_numbers():
    np = pytest.importorskip("numpy")
    event = {"a": np.float32(0.5), "b": np.int64(3), "c": np.array([1.0, np.nan])}
    assert plain(event) == {"a": 0.5, "b": 3, "c": [1.0, None]}
    assert type(plain(np.float64(0.5))) is float


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@settings(deadline=None)
@given(st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
def test_plain_is_always_valid_json_and_keeps_what_json_can_hold(value):
    once = plain(value)
    assert plain(json.loads(json.dumps(once, allow_nan=False))) == once


@pytest.mark.parametrize("cut", [b'{"event": "no', b'{"event": "note", "t": 1}', b"\xff\x00"])
def test_a_line_that_was_cut_is_taken_out_and_told(tmp_path, cut):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "note", "text": "whole"}\n' + cut)
    log = Events(path)
    log.emit("note", text="next")
    log.close()
    first, told, last = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert first["text"] == "whole" and last["text"] == "next"
    assert "cut" in told["text"] and cut.decode("utf-8", "backslashreplace") in told["text"]


def test_a_log_on_a_full_disk_ends_the_run_with_its_name_and_is_no_more():
    log, heard = Events(Path("/dev/full")), []
    log.listeners.append(heard.append)
    with pytest.raises(RunFailed, match=r"/dev/full: the log .*No space left"):
        log.emit("note", text="one")
    log.emit("note", text="two")
    log.close()
    assert [event["text"] for event in heard] == ["two"]
