"""`kdmesh run` on the inline backend: its folder, its seeds and controls, and how a broken run ends."""

from __future__ import annotations

import json
import re
import sys

import pytest

from kdmesh.cli import main
from kdmesh.engine.curves import Curve

MESH = """
name: small
data: {dataset: digits, train: 200}
agents: {t1: {model: mlp}, t2: {model: {mlp: {hidden: [16]}}}, student: {model: {mlp: {hidden: [8]}}}}
connect: [{ensemble: {teachers: [t1, t2], student: student, objective: {kl: {temperature: 4}}}}]
train: {epochs: 2, optimizer: {adamw: {lr: 1e-2}}}
"""
BESIDE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, fail=False):
        super().__init__()
        self.linear, self.fail = nn.Linear(64, 10), fail

    def forward(self, x):
        if self.fail and self.training and x.device.type == "cpu":
            raise ZeroDivisionError("a fault of its own\\nwith a second line")
        return self.linear(x.flatten(1))
"""


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run a mesh inline; returns the exit code, what it printed, what it said, and its run folders."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def command(text, *arguments):
        (tmp_path / "mesh.yaml").write_text(text, encoding="utf-8")
        out = tmp_path / "runs"
        code = main(["run", str(tmp_path / "mesh.yaml"), "--backend", "inline", "--out", str(out), *arguments])
        return code, *capsys.readouterr(), sorted(out.glob("*/*"))

    return command


def events(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def test_what_others_print_meanwhile_stands_among_messages_and_not_among_tables(run, monkeypatch):
    from kdmesh.backends.inline import InlineBackend

    opened = InlineBackend.open

    def loud(self, *args):
        print("(raylet) a worker died")
        opened(self, *args)

    monkeypatch.setattr(InlineBackend, "open", loud)
    code, out, said, _ = run(MESH.replace("train: 200", "train: 40").replace("epochs: 2", "steps: 2"))
    assert code == 0 and "(raylet)" in said
    assert "(raylet)" not in out and "student" in out


def test_a_run_prints_its_result_and_writes_its_folder(run):
    code, out, _, (folder,) = run(MESH)
    assert code == 0
    assert "student" in out and str(folder) in out
    names = {path.name for path in folder.iterdir()}
    assert {"mesh.yaml", "resolved.yaml", "events.jsonl", "summary.json", "manifest.json", "agents"} <= names
    assert (folder / "mesh.yaml").read_text(encoding="utf-8") == MESH
    assert [events(folder)[i]["event"] for i in (0, 1, -1)] == ["hosts_opening", "run_started", "run_finished"]


def test_seeds_and_controls_print_means_intervals_and_wins(run):
    code, out, said, (whole,) = run(MESH, "--seeds", "3", "--controls")
    assert code == 0
    folders = sorted((whole / "seeds").iterdir())
    assert len(folders) == 3 and all(str(folder) in said for folder in folders) and str(whole) in out
    assert "95%" in out and "wins" in out
    summaries = [json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in folders]
    assert sorted(summary["seed"] for summary in summaries) == [0, 1, 2]
    (accuracy,) = (line for line in out.splitlines() if "student, test accuracy" in line)
    mean = sum(s["agents"]["student"]["metrics"]["test"]["accuracy"] for s in summaries) / 3
    assert f"{mean:.4f}" in accuracy and accuracy.split()[-1] == "3"
    assert any("student" in line and "alone" in line for line in out.splitlines())
    assert any("student" in line and "best teacher" in line for line in out.splitlines())
    for summary in summaries:
        control = summary["controls"]["student"]
        assert 0 < control["alone"]["test"]["accuracy"] < 1
        assert control["best_teacher"]["teacher"] in ("t1", "t2")


def test_the_same_seed_gives_the_same_weights(run):
    sums = []
    for _ in range(2):
        folders = run(MESH, "--seed", "7", "--quiet")[3]
        summary = json.loads((folders[-1] / "summary.json").read_text(encoding="utf-8"))
        assert summary["seed"] == 7
        sums.append({name: facts["weights_sha256"] for name, facts in summary["agents"].items()})
    assert sums[0] == sums[1]


def test_a_loss_that_is_not_finite_stops_the_run_with_agent_step_flow_and_ranges(run):
    code, _, said, (folder,) = run(
        MESH.replace("hidden: [8]}}", "hidden: [8]}}, train: {optimizer: {sgd: {lr: 1e30}}}")
    )
    assert code == 1
    assert "Traceback" not in said
    assert re.search(
        r"mesh.yaml: agents.student: the loss became (nan|inf) at step \d+ on the flow (labels|c) -> student; "
        r"its own signal is .*, the target in \[.*\]",
        said,
    )
    assert list((folder / "checkpoints").glob("student/*/manifest.json"))
    assert events(folder)[-1]["event"] == "run_failed"


def test_an_error_of_a_model_is_told_by_its_file_and_line(run, tmp_path):
    (tmp_path / "beside_the_mesh.py").write_text(BESIDE, encoding="utf-8")
    code, _, said, (folder,) = run(MESH.replace("{mlp: {hidden: [8]}}", "{'beside_the_mesh:Net': {fail: true}}"))
    assert code == 1
    assert "failed to answer at step 0 on the stream 'train': ZeroDivisionError: a fault of its own" in said
    assert "agents.student.model" in said and "beside_the_mesh.py, line 11" in said and "Traceback" not in said
    assert events(folder)[-1]["event"] == "run_failed"


def test_an_error_nobody_foresaw_is_told_in_a_line_and_traced_in_the_folder(run, monkeypatch):
    def add(self, *about):
        raise ZeroDivisionError("a fault of its own\nwith a second line")

    monkeypatch.setattr(Curve, "add", add)
    code, _, said, (folder,) = run(MESH)
    assert code == 1
    assert "kdmesh: error: the run failed: ZeroDivisionError: a fault of its own\n" in said
    assert "Traceback" not in said and f"see the traceback in {folder / 'error.txt'}" in said
    text = (folder / "error.txt").read_text(encoding="utf-8")
    assert text.startswith("Traceback") and "with a second line" in text
    assert events(folder)[-1]["event"] == "run_failed"


def test_a_folder_that_cannot_be_written_is_wrong_input(run, tmp_path):
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    code, _, said, _ = run(MESH, "--out", str(tmp_path / "taken"))
    assert code == 2
    assert "--out: is a file, not a folder" in said and "Traceback" not in said
