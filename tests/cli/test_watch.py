"""`kdmesh watch`: a run of another process, from its first event to its tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from commands import PATIENCE

from kdmesh.cli import main, watch
from kdmesh.report.run_folder import read
from kdmesh.report.words import say

MESH = """
name: m
data: {dataset: digits, train: 64, test: 32}
agents: {t1: {model: {mlp: {hidden: [4]}}}, s: {model: {mlp: {hidden: [4]}}}}
connect: [{ensemble: {teachers: t1, student: s}}]
train: {epochs: %d, batch_size: 16}
"""


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_its_tables_and_stays_as_it_is(runs, capsys):
    folder = runs["several"]
    before = contents(folder)
    assert main(["watch", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "2 seeds" in out and "verdicts" in out and "equal in every pair" in out and err == ""
    assert out.splitlines()[-1].startswith(f"{folder}  (training and tests without controls: ")
    assert contents(folder) == before


def test_by_default_it_is_the_newest_run_of_runs(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs.root.parent)
    runs["small"].rename(runs.root / "small" / "29990101-000000")
    assert main(["watch"]) == 0 and "small, seed 0" in capsys.readouterr().out
    monkeypatch.chdir(runs.root / "small" / "29990101-000000")
    assert main(["watch"]) == 2 and "there is no run in runs/ here" in capsys.readouterr().err


STOPPED = {"event": "run_failed", "t": 1.0, "error": "KeyboardInterrupt", "interrupted": True}
BROKEN = {"event": "run_failed", "t": 1.0, "error": "a loss is \x1b[2JNaN", "interrupted": False}


def test_a_failed_run_ends_with_its_error_and_what_was_made(runs, capsys):
    folder = runs["several"]
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, "failed": {"seed 2": "<b>a loss</b> is \x1b[2JNaN"}}))
    assert main(["watch", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert "2 seeds" in out and err == "kdmesh: error: seed 2: <b>a loss</b> is \\x1b[2JNaN\n"
    assert main(["watch", str(runs.unfinished(runs["small"], BROKEN))]) == 1
    assert capsys.readouterr() == ("", "kdmesh: error: a loss is \\x1b[2JNaN\n")


@pytest.mark.parametrize(("last", "word"), [([STOPPED], "paused"), ([], "interrupted")])
def test_once_tells_how_a_run_stands(runs, at_work, capsys, last, word):
    folder = runs.unfinished(runs["small"], *last)
    assert main(["watch", "--once", str(folder)]) == 130
    assert read(folder).status == word
    assert capsys.readouterr().err == f"small: {word}; go on with: kdmesh resume {folder}\n"
    with at_work(folder):
        assert main(["watch", "--once", str(folder)]) == 0
    err = capsys.readouterr().err
    assert all(say(event) in err for event in read(folder).log.events if event.kind == "stage_started")


def test_a_run_that_is_waited_for_is_shown_once_it_is_resumed(runs, at_work, capsys, monkeypatch):
    folder = runs.unfinished(runs["small"], STOPPED)
    results = json.dumps({"failed": {}})
    monkeypatch.setattr(watch, "POLL", 0.01)
    holding = at_work(folder)
    steps = iter(
        [
            lambda: None,
            lambda: holding.__enter__(),
            lambda: (folder / "events.jsonl").open("a").write('{"event": "note", "t": 0.1, "text": "went on"}\n'),
            lambda: (folder / "summary.json").write_text(json.dumps(summary)),
            lambda: (folder / "results.json").write_text(results),
            lambda: holding.__exit__(None, None, None),
        ]
    )
    summary = json.loads(next(runs.root.glob("several/*/seeds/0/summary.json")).read_text())
    monkeypatch.setattr(watch.time, "sleep", lambda _: next(steps)())
    assert main(["watch", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert f"small: paused; go on with: kdmesh resume {folder}" in err and "note: went on" in err
    assert "several, seed 0" in out and next(steps, None) is None


def test_ctrl_c_ends_the_watching_alone(runs, at_work, capsys, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    folder = runs.unfinished(runs["small"])
    monkeypatch.setattr(watch.time, "sleep", interrupted)
    with at_work(folder):
        before = contents(folder)
        assert main(["watch", str(folder)]) == 130
        assert contents(folder) == before
    assert "was only watched: nothing of it has changed" in capsys.readouterr().err


def test_a_part_is_watched_with_its_whole_and_what_is_no_run_is_refused(runs, tmp_path, capsys):
    folder = runs["several"]
    assert main(["watch", str(folder / "seeds" / "0")]) == 2
    assert f"this is a part of the run {folder}" in capsys.readouterr().err
    (tmp_path / "moved").mkdir()
    (folder / "seeds" / "0").rename(tmp_path / "moved" / "0")
    assert main(["watch", str(tmp_path / "moved" / "0")]) == 0
    assert main(["watch", str(tmp_path)]) == 2 and "it has no manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "odd",
    ['{"event": "evaluated", "t": 1, "stage": "", "agent": "s", "stream": "x", "epoch": 1, "metrics": 3}', '{"no'],
)
def test_an_event_that_was_edited_is_passed_over(runs, at_work, capsys, odd):
    folder = runs.unfinished(
        runs["small"], {"event": "later", "t": 1.0}, {"event": "note", "t": 2.0, "text": "<i>"}, cut=odd
    )
    with (folder / "events.jsonl").open("a") as log:
        log.write("\n")
    with at_work(folder):
        assert main(["watch", "--once", str(folder)]) == 0
    err = capsys.readouterr().err
    assert "not known here are left out: later (1)" in err and "note: <i>" in err


def test_results_that_were_edited_are_refused_in_words(runs, capsys):
    (runs["small"] / "summary.json").write_text("{}")
    assert main(["watch", str(runs["small"])]) == 2
    assert "its tables cannot be made: KeyError: 'rounds'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_live_run_is_watched_to_its_end_and_a_killed_one_until_it_is_resumed(tmp_path):
    def kdmesh(*arguments, **streams):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-m", "kdmesh", *arguments], cwd=tmp_path, env=environment, **streams)

    (tmp_path / "m.yaml").write_text(MESH % 400)
    run = kdmesh("run", "m.yaml", "--backend", "inline", "--quiet", "--checkpoint-seconds", "0.2")
    deadline = time.monotonic() + PATIENCE
    while not list(tmp_path.glob("runs/m/*/progress.json")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    (folder,) = tmp_path.glob("runs/m/*")
    watched = kdmesh("watch", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    reading = threading.Thread(target=lambda: said.extend(watched.stderr))
    reading.start()
    run.send_signal(signal.SIGKILL)
    run.wait()
    while not any("go on with: kdmesh resume" in line for line in said):
        assert watched.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert read(folder).status == "interrupted"
    assert kdmesh("resume", str(folder), "--quiet", stdout=subprocess.DEVNULL).wait(PATIENCE) == 0
    out, _ = watched.stdout.read(), reading.join(PATIENCE)
    assert watched.wait(PATIENCE) == 0
    assert "m, seed 0" in out and "student" in out and not (folder / "progress.json").exists()
    assert any("m: interrupted; go on with" in line for line in said)
    watched.stdout.close()
    watched.stderr.close()
