"""What `compare` and `sweep` share: pages at their end, and what a signal while they plan leaves to say."""

from __future__ import annotations

import json
import os
import signal
import time
from types import SimpleNamespace

import pytest

from kdmesh.cli import main
from kdmesh.cli import trials as shared
from kdmesh.compare import comparison
from kdmesh.errors import RunFailed
from kdmesh.sweep import start, sweeping

MESH = """
name: small
data: {dataset: digits, train: 60}
agents: {teacher: {model: {mlp: {hidden: [8]}}}, student: {model: {mlp: {hidden: [8]}}}}
connect: [{ensemble: {teachers: teacher, student: student}}]
train: {epochs: 1, batch_size: 32}
"""
COMPARE = ["compare", "small.yaml", "--variant", "train.epochs=2"]
SWEEP = ["sweep", "small.yaml", "--over", "train.batch_size=16,32"]


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(MESH, encoding="utf-8")
    return tmp_path


def stopped(number):
    """Something that a signal interrupts."""

    def planning(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(60)

    return planning


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("command", "module"), [(COMPARE, comparison), (SWEEP, start)], ids=["compare", "sweep"])
def test_a_signal_before_there_is_a_folder_says_that_nothing_was_begun(
    at, monkeypatch, capsys, command, module, number
):
    monkeypatch.setattr(module, "design", stopped(number))
    assert main(command) == 130
    assert capsys.readouterr().err == "kdmesh: interrupted; nothing was begun: give the same command again\n"
    assert not (at / "runs").exists()


def test_a_signal_while_a_sweep_is_planned_again_says_how_to_go_on(at, monkeypatch, capsys):
    monkeypatch.setattr(sweeping.Meshes, "plan", stopped(signal.SIGTERM))
    root = start.begin(at / "runs", start.Sweep(
        name="small", given={}, anchor="", text="", beside=[], agent="student", points=2, arms={"mesh": ["seed"]},
        axes=[{"path": "train.batch_size", "values": [16, 32]}],
    ))  # fmt: skip
    assert main(["resume", str(root)]) == 130
    assert capsys.readouterr().err == f"kdmesh: interrupted; go on with: kdmesh resume {root}\n"


def test_its_page_is_written_at_the_end_also_where_trials_failed(runs, capsys, monkeypatch):
    """``runs["small"]`` stands in for a comparison: any folder has its page written."""
    folder = runs["small"]
    clock = iter([0.0, 1000.0, 0.0, 0.0, 1.0])  # of the second no page is asked for
    monkeypatch.setattr(shared, "monotonic", lambda: next(clock))
    tables = []

    def run(shown, steps):
        raise RunFailed("a trial failed")

    work = SimpleNamespace(root=folder, run=run)
    (folder / "table.json").write_text(json.dumps({"a": 1}))

    def made(**flags):
        args = SimpleNamespace(**{"quiet": False, "no_report": False, **flags})
        with pytest.raises(RunFailed, match="a trial failed"):
            shared.made(work, "table.json", args, lambda table, root: tables.append(table))
        return capsys.readouterr().err

    assert made() == f"its page: {folder / 'report.html'}\n" and (folder / "report.html").exists()
    (folder / "report.html").unlink()
    assert made(no_report=True) == "" and not (folder / "report.html").exists()
    assert f"more than 2% of this run; to have it:\n  kdmesh report {folder}" in made()
    assert tables == [{"a": 1}] * 3
