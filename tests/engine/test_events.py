from __future__ import annotations

import json
import math
from dataclasses import MISSING, FrozenInstanceError, fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.contracts.events import (
    KINDS,
    SCHEMA,
    Evaluated,
    Event,
    Note,
    Progress,
    RoundFinished,
    RunFinished,
    RunStarted,
    StageResumed,
    StageStarted,
)
from kdmesh.contracts.events import read as event_of
from kdmesh.engine.events import Events, progressed
from kdmesh.errors import RunFailed
from kdmesh.files import plain
from kdmesh.report.log import Log


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_event_is_one_flat_line_on_disk_before_the_next_begins(tmp_path):
    events = Events(tmp_path / "run" / "events.jsonl")
    events.emit(StageStarted("s1", ["a", "b"], 10))
    (first,) = read(tmp_path / "run" / "events.jsonl")
    assert first["t"] >= 0 and first["t"] == round(first["t"], 3)
    told = {"stage": "s1", "agents": ["a", "b"], "steps": 10}
    assert first == {"schema": SCHEMA, "event": "stage_started", "t": first["t"], **told}
    events.emit(Note("größer\nals"))
    first, second = read(tmp_path / "run" / "events.jsonl")
    assert (first["event"], second["event"]) == ("stage_started", "note") and "schema" not in second
    events.close()
    events.close()


def test_time_does_not_run_backwards():
    heard = []
    events = Events()
    events.listeners.append(heard.append)
    for _ in range(5):
        events.emit(Note(""))
    assert [event.t for event in heard] == sorted(event.t for event in heard)


def test_progress_is_told_but_not_written(tmp_path):
    heard = []
    events = Events(tmp_path / "events.jsonl")
    events.listeners.append(heard.append)
    events.emit(Progress("s1", 1, 2, {"a": math.nan}))
    events.close()
    assert heard[0].losses == {"a": None}
    assert read(tmp_path / "events.jsonl") == []


def test_what_is_not_finite_is_null_and_not_the_word_nan(tmp_path):
    events = Events(tmp_path / "events.jsonl")
    heard = []
    events.listeners.append(heard.append)
    events.emit(RoundFinished("s", 1, 2, {"loss": math.inf, "ece": [-math.inf, 0.5], "folder": Path("runs") / "x"}))
    events.close()
    (event,) = read(tmp_path / "events.jsonl")
    assert event["metrics"] == {"loss": None, "ece": [None, 0.5], "folder": str(Path("runs") / "x")}
    assert heard[0].metrics == event["metrics"]


def test_a_log_that_is_opened_again_is_continued(tmp_path):
    for text in ("before", "after the resume"):
        events = Events(tmp_path / "events.jsonl")
        events.emit(Note(text))
        events.close()
    assert [event["text"] for event in read(tmp_path / "events.jsonl")] == ["before", "after the resume"]


def test_a_listener_that_raises_is_removed_and_the_others_are_told(tmp_path):
    heard = []

    def broken(event):
        raise ValueError("no terminal")

    events = Events(tmp_path / "events.jsonl")
    events.listeners += [broken, heard.append]
    events.emit(RunStarted("x", 0, "inline", {}, []))
    events.emit(RunFinished(1.0, None))
    events.close()
    assert sorted(event.kind for event in heard) == ["note", "run_finished", "run_started"]
    note = next(event for event in heard if isinstance(event, Note))
    assert "broken" in note.text and "ValueError: no terminal" in note.text
    assert [event["event"] for event in read(tmp_path / "events.jsonl")] == ["run_started", "note", "run_finished"]


def test_two_broken_listeners_end_neither_the_run_nor_in_a_loop():
    events = Events()

    def first(event):
        raise RuntimeError("one")

    def second(event):
        raise RuntimeError("two")

    events.listeners += [first, second]
    events.emit(Note("x"))
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
        events.emit(Note("x"))


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
    log.emit(Note("next"))
    log.close()
    first, told, last = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert first["text"] == "whole" and last["text"] == "next"
    assert "cut" in told["text"] and cut.decode("utf-8", "backslashreplace") in told["text"]


def test_a_log_on_a_full_disk_ends_the_run_with_its_name_and_is_no_more():
    log, heard = Events(Path("/dev/full")), []
    log.listeners.append(heard.append)
    with pytest.raises(RunFailed, match=r"/dev/full: the log .*No space left"):
        log.emit(Note("one"))
    log.emit(Note("two"))
    log.close()
    assert [event.text for event in heard] == ["two"]


def test_each_process_that_writes_a_log_names_the_schema_once(tmp_path):
    for text in ("one", "two"):
        log = Events(tmp_path / "events.jsonl")
        log.emit(Note(text))
        log.emit(Note("more"))
        log.close()
    assert [line.get("schema") for line in read(tmp_path / "events.jsonl")] == [SCHEMA, None, SCHEMA, None]


EMPTY = {"str": "", "int": 0, "float": 0.0, "bool": True, "int | None": None, "str | None": None}
EMPTY |= {"float | None": None}


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.kind)
def test_an_event_that_is_written_is_read_back_whatever_a_later_version_adds(kind):
    values = {one.name: EMPTY.get(one.type, [] if one.type.startswith("list") else {}) for one in fields(kind)}
    event = kind(**values)
    line = json.loads(json.dumps(event.record()))
    assert line["event"] == kind.kind and event_of({"schema": SCHEMA + 1, **line, "added_later": [1]}) == event
    for name in (one.name for one in fields(kind) if one.default is MISSING):
        assert event_of({key: value for key, value in line.items() if key != name}) is None


@pytest.mark.parametrize("record", [None, [], "note", {}, {"event": "later"}, {"event": ["note"]}, {"event": "event"}])
def test_what_is_no_event_of_this_version_is_passed_over(record):
    assert event_of(record) is None


def test_events_cannot_be_changed_and_their_fields_are_checked():
    with pytest.raises(FrozenInstanceError):
        Note("x").text = "y"
    with pytest.raises(TypeError):
        Note(txt="x")
    assert "progress" in KINDS and all(issubclass(kind, Event) for kind in KINDS.values())


def test_a_log_with_lines_of_a_later_version_tells_which_stages_have_got_on(tmp_path):
    path = tmp_path / "events.jsonl"
    told = [StageStarted("a", ["a"], 1), StageResumed("b", ["b"], 1), Evaluated("c", "c", "validation", 1, {})]
    lines = [json.dumps({"schema": SCHEMA + 1, "event": "paused", "stage": "d"})]
    lines += [json.dumps({**event.record(), "by": "later"}) for event in told]
    path.write_text("\n".join([*lines, "[]", "3", '{"event": "stage_fin']), encoding="utf-8")
    assert list(Log.read(path).events) == told
    assert progressed(path) == {"b", "c"} and progressed(tmp_path / "none") == set()


def test_every_line_of_a_run_is_an_event_with_exactly_its_fields(mesh, tmp_path):
    made = mesh(["s"])
    made.flow("labels", "s", objective="ce")
    run = made.run(backend="inline", out=tmp_path)
    lines = read(run.folder / "events.jsonl")
    assert lines[0].pop("schema") == SCHEMA
    assert [event.record() for event in Log.read(run.folder / "events.jsonl").events] == lines
    assert {"run_started", "stage_started", "evaluated", "run_finished"} <= {line["event"] for line in lines}
