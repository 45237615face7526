from __future__ import annotations

import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.engine.events import Events
from kdmesh.report.live import Bars, Lines, Pace, listener
from kdmesh.report.words import clock, losses_text, say

ROUND = {
    "event": "round_finished",
    "stage": "s",
    "round": 2,
    "rounds": 10,
    "metrics": {
        "agreement": 0.91,
        "churn": 0.04,
        "consensus": {"c": {"accuracy": 0.953}},
        "gain": {"s1": 0.02, "s2": 0.04},
        "accuracy": {"s1": 0.9, "s2": 0.92},
    },
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(show, steps=400):
    hosts, stages = {"here": ["t1", "party[0]"]}, [{"stage": stage, "steps": steps} for stage in ("t1", "s")]
    start = {"event": "run_started", "t": 0.0, "name": "council", "seed": 0, "backend": "inline"}
    show({**start, "hosts": hosts, "stages": stages})
    for start, stage, agent in ((0.0, "t1", "t1"), (10.0, "s", "party[0]")):
        show({"event": "stage_started", "t": start, "stage": stage, "agents": [agent], "steps": steps})
        for turn in range(1, 11):
            now = start + turn
            at = {"t": now, "stage": stage, "steps": steps}
            show({"event": "progress", **at, "done": turn * steps // 10, "losses": {agent: 1 / turn}})
            metrics = {"accuracy": turn / 10, "loss": None, "ece": 0.01}
            show({"event": "evaluated", **at, "agent": agent, "stream": "validation", "metrics": metrics})
        show({**ROUND, "t": start + 10, "stage": stage})
        show({"event": "stage_finished", "t": start + 10, "stage": stage, "reason": "spent", "seconds": 10.0})
    show({"event": "run_finished", "t": 20.0, "seconds": 20.0, "folder": "runs/council/1"})


def test_a_pipe_gets_plain_lines():
    stream = io.StringIO()
    run(listener(stream))
    assert stream.getvalue().splitlines() == [
        "council, seed 0 on inline: 2 agents on 1 host, 2 stages, 800 steps",
        "stage t1 started: t1, 400 steps",
        "25%, 0:15 left; t1 200/400 loss t1 0.2",
        "50%, 0:10 left; t1 400/400 loss t1 0.1",
        "stage t1, round 2/10: agreement 0.9100, churn 0.0400, consensus c 0.9530, mean gain +0.0300",
        "stage t1, t1 on validation: accuracy 1.0000, ece 0.0100",
        "stage t1 finished in 0:10: spent",
        "stage s started: party[0], 400 steps",
        "75%, 0:05 left; s 200/400 loss party[0] 0.2",
        "100%, 0:00 left; s 400/400 loss party[0] 0.1",
        "stage s, round 2/10: agreement 0.9100, churn 0.0400, consensus c 0.9530, mean gain +0.0300",
        "stage s, party[0] on validation: accuracy 1.0000, ece 0.0100",
        "stage s finished in 0:10: spent",
        "finished in 0:20: runs/council/1",
    ]


@pytest.mark.parametrize("width", ["7", "20", "80", "300"])
def test_a_terminal_gets_bars_at_any_width(monkeypatch, width):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", width)
    stream = Terminal()
    show = listener(stream)
    assert isinstance(show, Bars)
    run(show)
    show.close()
    text = stream.getvalue()
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert "stage s finished in 0:10: spent" in text
    if width == "300":
        assert "all stages" in text and "party[0]" in text and "400/400" in text


def test_an_interrupted_display_gives_the_terminal_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    events = Events()
    events.listeners.append(listener(stream))
    events.emit("progress", stage="s", done=1, steps=10, losses={})
    events.close()
    assert "\x1b[?25h" in stream.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(listener(Terminal()), Lines)


def test_quiet_shows_notes_only():
    stream = io.StringIO()
    show = listener(stream, quiet=True)
    run(show)
    show({"event": "note", "t": 1.0, "text": "teacher t2 is dropped"})
    assert stream.getvalue() == "note: teacher t2 is dropped\n"


def test_an_evaluation_outside_its_stage_is_said_at_once():
    stream = io.StringIO()
    listener(stream)({"event": "evaluated", "stage": "s", "agent": "a", "stream": "test", "metrics": {"accuracy": 0.5}})
    assert stream.getvalue() == "stage s, a on test: accuracy 0.5000\n"


def test_a_stage_that_stops_early_leaves_no_steps_to_wait_for():
    show = Lines(io.StringIO())
    show({"event": "run_started", "t": 0.0, "stages": [{"stage": "a", "steps": 1000}, {"stage": "b", "steps": 20}]})
    for now, done in ((0.0, 0), (1.0, 10)):
        show({"event": "progress", "t": now, "stage": "a", "done": done, "steps": 1000})
    show({"event": "stage_finished", "t": 1.0, "stage": "a", "reason": "agreed", "seconds": 1.0})
    show({"event": "progress", "t": 2.0, "stage": "b", "done": 10, "steps": 20})
    assert show.overall.left(2.0) == pytest.approx(1.0)


def test_the_pace_of_a_resumed_run_counts_from_where_it_resumed():
    pace = Pace(total=1000)
    pace.report(5.0, 500)
    assert pace.left(5.0) is None
    pace.report(6.0, 510)
    assert pace.left(6.0) == pytest.approx(49.0)


def test_many_stages_and_losses_are_cut_short():
    stream = io.StringIO()
    show = listener(stream)
    for index in range(80):
        show({"event": "progress", "t": 0.0, "stage": f"s{index}", "done": 1, "steps": 2, "losses": {}})
    show({"event": "progress", "t": 6.0, "stage": "s0", "done": 2, "steps": 2, "losses": {}})
    assert stream.getvalue().endswith("s3 1/2; 76 more stages\n")
    assert losses_text({f"a{index}": 0.5 for index in range(9)}) == "loss a0 0.5 a1 0.5 a2 0.5 a3 0.5 ..."
    assert losses_text({"a": None}) == ""


def test_a_pipe_without_the_letters_gets_question_marks():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    listener(stream)({"event": "note", "text": "größer"})
    assert stream.buffer.getvalue() == b"note: gr??er\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (0.4, "0:00"), (59.6, "1:00"), (75, "1:15"), (3723, "1:02:03")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_the_first_round_has_no_churn():
    metrics = {**ROUND["metrics"], "churn": None, "gain": {"s1": None}}
    assert say({**ROUND, "metrics": metrics}) == "stage s, round 2/10: agreement 0.9100, consensus c 0.9530"


kinds = ["run_started", "stage_started", "progress", "evaluated", "round_finished", "stage_finished", "note"]
fields = st.fixed_dictionaries(
    {"event": st.sampled_from([*kinds, "run_failed", "run_finished", "unheard_of"])},
    optional={
        "t": st.floats(0, 1e4),
        "stage": st.sampled_from(["a", "[/b]", ""]) | st.none(),
        "done": st.integers(0, 100) | st.none(),
        "steps": st.integers(0, 100) | st.none(),
        "losses": st.dictionaries(st.text(max_size=3), st.none() | st.floats(0, 9), max_size=2) | st.none(),
        "metrics": st.sampled_from([None, {}, {"consensus": {"c": None}}, {"gain": {"a": None}}, ROUND["metrics"]]),
        "stages": st.sampled_from([None, [], [{}], [{"stage": "a", "steps": None}, {"stage": "[/b]", "steps": 7}]]),
    },
)


@settings(deadline=None)
@given(st.lists(fields, max_size=8), st.booleans())
def test_missing_fields_never_break_a_display(events, terminal):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        show = listener(Terminal() if terminal else io.StringIO())
        try:
            for event in events:
                show(event)
        finally:
            show.close()


def test_losses_that_are_not_numbers_anymore_do_not_break_the_line():
    stream = io.StringIO()
    events = Events()
    events.listeners.append(listener(stream))
    events.listeners[0]._last = -math.inf
    events.emit("progress", stage="s", done=1, steps=2, losses={"a": math.nan, "b": 0.5})
    assert stream.getvalue() == "50%; s 1/2 loss b 0.5\n"


def part(name, number, behind, ahead):
    return {"event": "part_started", "part": name, "number": number, "parts": 3, "behind": behind, "ahead": ahead}


def test_seeds_and_controls_have_one_progress():
    show = Lines(io.StringIO())
    show(part("seed 1", 2, 100, 20))  # seed 0 is done
    show({"event": "run_started", "t": 0.0, "stages": [{"stage": "a", "steps": 100}]})
    for now, done in ((1.0, 0), (2.0, 50)):
        show({"event": "progress", "t": now, "stage": "a", "done": done, "steps": 100})
    assert (show.overall.done, show.overall.total) == (150, 220)
    assert show.overall.left(2.0) == pytest.approx(70 / 50)
    show(part("seed 1, s alone", 3, 200, 0))
    show({"event": "run_started", "t": 2.0, "stages": [{"stage": "a", "steps": 20}]})
    show({"event": "progress", "t": 4.0, "stage": "a", "done": 10, "steps": 20})
    assert (show.overall.done, show.overall.total) == (210, 220)
    assert say(part("seed 1, s alone", 3, 0, 0)) == "seed 1, s alone (3 of 3)"


def test_stages_that_had_finished_count_as_done():
    show = Lines(io.StringIO())
    show({"event": "run_resumed", "t": 0.0, "stages": [{"stage": "a", "steps": 900}, {"stage": "b", "steps": 100}]})
    show({"event": "stage_finished_before", "t": 0.1, "stage": "a"})
    for now, done in ((1.0, 50), (2.0, 60)):
        show({"event": "progress", "t": now, "stage": "b", "done": done, "steps": 100})
    assert (show.overall.done, show.overall.total) == (960, 1000)
    assert show.overall.left(2.0) == pytest.approx(4.0)


def test_an_interruption_is_no_failure():
    assert say({"event": "run_failed", "error": "KeyboardInterrupt", "interrupted": True}) == ""
    assert say({"event": "run_failed", "error": "full", "interrupted": False}) == "failed: full"
