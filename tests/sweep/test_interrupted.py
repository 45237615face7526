"""`kdmesh sweep` in processes of its own: what a signal leaves, and what `kdmesh resume` makes of it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from commands import interrupt_and_resume, kdmesh

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
    root = interrupt_and_resume(tmp_path, ARGUMENTS, "*/*/*", number, whole)
    assert found(root) == found(unbroken)
