from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.contracts.events import (
    Evaluated,
    Event,
    Note,
    PartStarted,
    Progress,
    RoundFinished,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    StageFinished,
    StageFinishedBefore,
    StageStarted,
)
from kdmesh.engine.events import Events
from kdmesh.report.live import Bars, Lines, Pace, listener
from kdmesh.report.words import clock, losses_text, say

METRICS = {
    "agreement": 0.91,
    "churn": 0.04,
    "consensus": {"c": {"accuracy": 0.953}},
    "gain": {"s1": 0.02, "s2": 0.04},
    "accuracy": {"s1": 0.9, "s2": 0.92},
}
ROUND = RoundFinished("s", 2, 10, METRICS)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def begins(*stages, resumed=False, t=0.0):
    """A run's first event, with its stages' names and steps."""
    sizes = [{"stage": name, "agents": [], "steps": steps} for name, steps in stages]
    return (RunResumed if resumed else RunStarted)("council", 0, "inline", {"here": ["t1", "party[0]"]}, sizes, t=t)


def run(show, steps=400):
    show(begins(("t1", steps), ("s", steps)))
    for start, stage, agent in ((0.0, "t1", "t1"), (10.0, "s", "party[0]")):
        show(StageStarted(stage, [agent], steps, t=start))
        for turn in range(1, 11):
            now = start + turn
            show(Progress(stage, turn * steps // 10, steps, {agent: 1 / turn}, t=now))
            metrics = {"accuracy": turn / 10, "loss": None, "ece": 0.01}
            show(Evaluated(stage, agent, "validation", turn, metrics, t=now))
        show(replace(ROUND, t=start + 10, stage=stage))
        show(StageFinished(stage, "spent", 10.0, t=start + 10))
    show(RunFinished(20.0, "runs/council/1", t=20.0))


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
        "stage t1 finished in 0:10: budget spent",
        "stage s started: party[0], 400 steps",
        "75%, 0:05 left; s 200/400 loss party[0] 0.2",
        "100%, 0:00 left; s 400/400 loss party[0] 0.1",
        "stage s, round 2/10: agreement 0.9100, churn 0.0400, consensus c 0.9530, mean gain +0.0300",
        "stage s, party[0] on validation: accuracy 1.0000, ece 0.0100",
        "stage s finished in 0:10: budget spent",
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
    assert "stage s finished in 0:10: budget spent" in text
    if width == "300":
        assert "all stages" in text and "party[0]" in text and "400/400" in text


def test_an_interrupted_display_gives_the_terminal_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    events = Events()
    events.listeners.append(listener(stream))
    events.emit(Progress("s", 1, 10, {}))
    events.close()
    assert "\x1b[?25h" in stream.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(listener(Terminal()), Lines)


def test_quiet_shows_notes_only():
    stream = io.StringIO()
    show = listener(stream, quiet=True)
    run(show)
    show(Note("teacher t2 is dropped", t=1.0))
    assert stream.getvalue() == "note: teacher t2 is dropped\n"


def test_an_evaluation_outside_its_stage_is_said_at_once():
    stream = io.StringIO()
    listener(stream)(Evaluated("s", "a", "test", None, {"accuracy": 0.5}))
    assert stream.getvalue() == "stage s, a on test: accuracy 0.5000\n"


def test_a_stage_that_stops_early_leaves_no_steps_to_wait_for():
    show = Lines(io.StringIO())
    show(begins(("a", 1000), ("b", 20)))
    for now, done in ((0.0, 0), (1.0, 10)):
        show(Progress("a", done, 1000, {}, t=now))
    show(StageFinished("a", "agreed", 1.0, t=1.0))
    show(Progress("b", 10, 20, {}, t=2.0))
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
        show(Progress(f"s{index}", 1, 2, {}))
    show(Progress("s0", 2, 2, {}, t=6.0))
    assert stream.getvalue().endswith("s3 1/2; 76 more stages\n")
    assert losses_text({f"a{index}": 0.5 for index in range(9)}) == "loss a0 0.5 a1 0.5 a2 0.5 a3 0.5 ..."
    assert losses_text({"a": None}) == ""


def test_a_pipe_without_the_letters_gets_question_marks():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    listener(stream)(Note("größer"))
    assert stream.buffer.getvalue() == b"note: gr??er\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (0.4, "0:00"), (59.6, "1:00"), (75, "1:15"), (3723, "1:02:03")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_the_first_round_has_no_churn():
    first = replace(ROUND, metrics={**METRICS, "churn": None, "gain": {"s1": None}})
    assert say(first) == "stage s, round 2/10: agreement 0.9100, consensus c 0.9530"


names, steps, seconds = st.sampled_from(["a", "[/b]", ""]), st.integers(0, 100), st.floats(0, 1e4)
figures = st.dictionaries(st.text(max_size=3), st.none() | st.floats(0, 9), max_size=2)
rounds = st.sampled_from([{}, {"consensus": {"c": {}}}, {"consensus": None}, {"gain": {"a": None}}, METRICS])
told = st.one_of(
    st.lists(st.tuples(names, steps), max_size=2).map(lambda stages: begins(*stages)),
    st.builds(StageStarted, names, st.lists(names, max_size=2), steps, t=seconds),
    st.builds(Progress, names, steps, steps, figures, t=seconds),
    st.builds(Evaluated, names, names, names, st.none() | steps, figures, t=seconds),
    st.builds(RoundFinished, names, steps, steps, rounds, t=seconds),
    st.builds(StageFinished, names, names, seconds, t=seconds),
    st.builds(Note, names),
    st.builds(RunFailed, names, st.booleans()),
    st.builds(RunFinished, seconds, st.none() | names),
    st.just(Event()),  # of a kind that a display does not know
)


@settings(deadline=None)
@given(st.lists(told, max_size=8), st.booleans())
def test_no_order_of_events_and_no_figure_breaks_a_display(events, terminal):
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
    events.emit(Progress("s", 1, 2, {"a": math.nan, "b": 0.5}))
    assert stream.getvalue() == "50%; s 1/2 loss b 0.5\n"


def part(name, number, behind, ahead):
    return PartStarted(name, number, 3, behind, ahead)


def test_seeds_and_controls_have_one_progress():
    show = Lines(io.StringIO())
    show(part("seed 1", 2, 100, 20))  # seed 0 is done
    show(begins(("a", 100)))
    for now, done in ((1.0, 0), (2.0, 50)):
        show(Progress("a", done, 100, {}, t=now))
    assert (show.overall.done, show.overall.total) == (150, 220)
    assert show.overall.left(2.0) == pytest.approx(70 / 50)
    show(part("seed 1, s alone", 3, 200, 0))
    show(begins(("a", 20), t=2.0))
    show(Progress("a", 10, 20, {}, t=4.0))
    assert (show.overall.done, show.overall.total) == (210, 220)
    assert say(part("seed 1, s alone", 3, 0, 0)) == "seed 1, s alone (3 of 3)"


def test_stages_that_had_finished_count_as_done():
    show = Lines(io.StringIO())
    show(begins(("a", 900), ("b", 100), resumed=True))
    show(StageFinishedBefore("a", t=0.1))
    for now, done in ((1.0, 50), (2.0, 60)):
        show(Progress("b", done, 100, {}, t=now))
    assert (show.overall.done, show.overall.total) == (960, 1000)
    assert show.overall.left(2.0) == pytest.approx(4.0)


def test_an_interruption_is_no_failure():
    assert say(RunFailed("KeyboardInterrupt", True)) == ""
    assert say(RunFailed("full", False)) == "failed: full"
