"""Sweeps in this process: trials one after the other, without a process each."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdmesh.compare import child, making
from kdmesh.engine.experiment import Experiment
from kdmesh.errors import MeshError
from kdmesh.sweep.start import Asked, begin, design
from kdmesh.sweep.sweeping import Sweeping

MESH = """
name: small
data: {dataset: digits, train: 100}
agents:
  one: {model: {mlp: {hidden: [8]}}}
  two: {model: {mlp: {hidden: [12]}}}
  student: {model: {mlp: {hidden: [8]}}}
connect: [{ensemble: {teachers: [one, two], student: student, objective: {kl: {temperature: 1}}}}]
train: {epochs: 4, batch_size: 32, optimizer: {adamw: {lr: 0.01}}}
"""
LR, HOT = "train.optimizer.adamw.lr", "connect.0.ensemble.objective.kl.temperature"


class Here:
    """A pool that makes trials itself. ``before``: called with each trial, may raise."""

    before = staticmethod(lambda trial: None)

    def __init__(self, workers, told):
        self.told = told

    def run(self, orders):
        for trial, order in orders:
            type(self).before(trial)
            self.told(trial, {"begun": True})
            error = ""
            try:
                Experiment(child.request(order)).run()
            except MeshError as failed:
                error = str(failed)
            self.told(trial, {"ended": True, "error": error})


@pytest.fixture(scope="module")
def here():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "Pool", Here)
        yield Here


def begun(folder: Path, *over: str, mesh: str = MESH, **asked) -> Path:
    (folder / "small.yaml").write_text(mesh, encoding="utf-8")
    made, _ = design(Asked(str(folder / "small.yaml"), over, **asked))
    return begin(folder / "runs", made)


def swept(root: Path) -> dict:
    return Sweeping(root).run(lambda told: None)
