"""`kdmesh sweep` in processes of its own: what a signal leaves, and what `kdmesh resume` makes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import PATIENCE

MESH = """
name: small
data: {dataset: digits, train: 100}
agents:
  one: {model: {mlp: {hidden: [8]}}}
  two: {model: {mlp: {hidden: [12]}}}
  student: {model: {mlp: {hidden: [8]}}}
connect: [{ensemble: {teachers: [one, two], student: student}}]
train: {epochs: 2, batch_size: 32}
"""
ARGUMENTS = ["sweep", "small.yaml", "--over", "train.optimizer.adamw.lr=1e-6,0.03", "--seeds", "2", "--quiet"]

pytestmark = pytest.mark.slow


def kdmesh(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kdmesh", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "small.yaml").write_text(MESH, encoding="utf-8")
    done = kdmesh(folder, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def found(root: Path) -> tuple[dict, str, dict]:
    """The table, the points, and the weights of every trial."""
    weights = {
        str(path.parent.relative_to(root)): [
            one["weights_sha256"] for one in json.loads(path.read_text())["agents"].values()
        ]
        for path in sorted(root.glob("trials/**/summary.json"))
    }
    return json.loads((root / "sweep_result.json").read_text()), (root / "points.csv").read_text(), weights


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("whole", [0, 5, 8])  # among the points, among the controls, once it has chosen
def test_interrupted_anywhere_it_ends_with_the_table_of_the_unbroken_one(unbroken, tmp_path, number, whole):
    (tmp_path / "small.yaml").write_text(MESH, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "kdmesh", *ARGUMENTS],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE
    while len(list(tmp_path.glob("runs/*/*/trials/*/*/*/results.json"))) < whole or not list(
        tmp_path.glob("runs/*/*/trials/*/*/*/checkpoints")
    ):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    (root,) = tmp_path.glob("runs/*/*")
    if number != signal.SIGKILL:
        assert process.returncode == 130 and f"kdmesh resume {root.relative_to(tmp_path)}" in said
    done = kdmesh(tmp_path, "resume", str(root), "--quiet")
    while done.returncode == 2 and "another process" in done.stderr and time.monotonic() < deadline:
        time.sleep(0.2)  # a trial whose parent was killed writes its checkpoint before it ends
        done = kdmesh(tmp_path, "resume", str(root), "--quiet")
    assert done.returncode == 0, done.stderr
    assert found(root) == found(unbroken)
