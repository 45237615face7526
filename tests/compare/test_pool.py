"""Processes that make trials: what the pool hears of their end, however they come to it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import pytest
from commands import PATIENCE

from kdmesh.compare import pool
from kdmesh.compare.child import Order

ORDER = Order({}, "at", None, [], "inline", None, False, False, 60.0, 600.0, "resume")
KILLED = """
import os, pathlib, signal, subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # as Ray's: it has our pipes open
with open("left.txt", "a") as file:
    file.write(f"{left.pid}\\n")
print('{"done": 1, "total": 2}', flush=True)
if len(pathlib.Path("left.txt").read_text().split()) <= KILLS:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a pool whose processes execute a program; returns what was told of the one trial."""
    monkeypatch.chdir(tmp_path)

    def made(program, drain=0.05):
        heard = []
        monkeypatch.setattr(pool.Pool, "command", (sys.executable, "-c", program))
        monkeypatch.setattr(pool, "DRAIN", drain)
        pool.Pool(2, lambda trial, what: heard.append(what)).run([("a", ORDER)])
        return heard

    yield made
    for pid in (tmp_path / "left.txt").read_text().split() if (tmp_path / "left.txt").exists() else ():
        with suppress(ProcessLookupError):
            os.kill(int(pid), 9)


def test_a_killed_process_whose_children_live_on_is_noticed_and_its_trial_made_again(run):
    heard = run(KILLED.replace("KILLS", "1"))
    assert heard[-1] == {"ended": True, "error": "", "code": 1}
    (note,) = [what["note"] for what in heard if "note" in what]
    assert "was ended by signal 9; it is made again" in note
    assert sum("begun" in what for what in heard) == 2


def test_a_trial_that_is_killed_again_is_named_failed(run):
    heard = run(KILLED.replace("KILLS", "2"))
    assert "its process was ended by signal 9" in heard[-1]["error"] and heard[-1]["ended"]
    assert sum("begun" in what for what in heard) == 2


def test_what_a_process_said_last_stands_in_its_error(run):
    (end,) = [what for what in run("import sys; sys.exit('no such thing')", PATIENCE) if "ended" in what]
    assert end["error"] == "its process ended with code 1: no such thing"
