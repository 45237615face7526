"""Optuna behind kdmesh's sampler: what it proposes, what its journal keeps, and how it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import optuna
import pytest
from kdmesh.plugins import Registry
from kdmesh.samplers import Choices, Range
from kdmesh.testing import SamplerContract

from kdmesh_optuna import plugin
from kdmesh_optuna.sampler import NAME, Optuna

AXES = [
    Range(path="lr", low=1e-4, high=1e-1, log=True),
    Range(path="width", low=4, high=64),
    Choices(path="rule", values=["mean", {"vote": {"of": [1, 2]}}]),
]


def made(folder: Path, axes=AXES, seed: int = 0, higher: bool = True) -> Optuna:
    return Optuna(axes=axes, count=30, seed=seed, higher=higher, folder=folder, startup=5)


def score(point) -> float:
    return -abs(point["width"] - 40) / 10 + (point["rule"] == "mean")


def climb(sampler: Optuna, points: int, turn: int = 2) -> list:
    found: list = []
    while len(found) < points:
        asked = [sampler.ask() for _ in range(min(turn, points - len(found)))]
        for point in asked:
            sampler.tell(point, None if point["width"] < 8 else score(point))
        found += asked
    return found


class TestContract(SamplerContract):
    """It keeps the contract of samplers, with few points before it learns."""

    config: ClassVar = {"startup": 3}
    module = "kdmesh_optuna.plugin"

    @pytest.fixture
    def offer(self):
        """What is checked."""
        return plugin.SAMPLERS[0]


def test_it_is_offered_and_found_by_its_name(tmp_path):
    offered = Registry([plugin])
    assert offered.find("samplers", "optuna").adaptive
    config = offered.check("samplers", "optuna", {"startup": 3}).model_dump()
    assert isinstance(
        offered.find("samplers", "optuna").make(config, axes=AXES, count=3, seed=0, higher=True, folder=tmp_path),
        Optuna,
    )


def test_points_lie_in_the_space_and_it_learns_where_good_ones_are(tmp_path):
    points = climb(made(tmp_path), 30)
    assert all(1e-4 <= one["lr"] <= 1e-1 and 4 <= one["width"] <= 64 for one in points)
    assert all(isinstance(one["width"], int) and one["rule"] in AXES[2].values for one in points)
    early, late = points[:10], points[20:]
    assert sum(map(score, late)) > sum(map(score, early))


def test_less_is_better_where_the_metric_says_so(tmp_path):
    sampler = made(tmp_path, higher=False)
    for _ in range(3):
        point = sampler.ask()
        sampler.tell(point, point["lr"])
    assert sampler._study.best_value == min(trial.value for trial in sampler._study.trials)


@pytest.mark.parametrize("after", [1, 2, 7, 12])
def test_interrupted_anywhere_it_proposes_what_it_would_have(tmp_path, after):
    unbroken = climb(made(tmp_path / "unbroken"), 16)
    first = made(tmp_path / "broken")
    climb(first, after)
    if after % 2:
        first.ask()  # proposed, and never told
    else:
        first._study.ask()  # killed before it had its values
    path = tmp_path / "broken" / "journal.log"
    path.write_bytes(path.read_bytes() + b'{"op_code": 5, "worker')  # killed as it wrote
    assert climb(made(tmp_path / "broken"), 16) == unbroken


def made_of(folder: Path) -> optuna.Study:
    """The study in a folder's journal, read by Optuna alone."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    return optuna.load_study(study_name=NAME, storage=optuna.storages.JournalStorage(backend))


def test_the_journal_is_one_that_optuna_reads(tmp_path):
    climb(made(tmp_path), 8)
    study = made_of(tmp_path)
    assert len(study.trials) == 8 and study.best_trial.value is not None
    assert not any(trial.state == optuna.trial.TrialState.RUNNING for trial in study.trials)


def test_a_point_that_failed_and_is_made_again_is_told_once_more(tmp_path):
    first = made(tmp_path)
    points = [first.ask() for _ in range(2)]
    first.tell(points[0], None)
    first.tell(points[1], 0.5)
    for _ in range(2):  # resumed twice: it is told of once
        second = made(tmp_path)
        assert [second.ask() for _ in range(2)] == points
        second.tell(points[0], 0.7)
        second.tell(points[1], 0.5)
    trials = made_of(tmp_path).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[0].params and trials[2].value == 0.7 and trials[2].user_attrs == {"again": 0}
    third = made(tmp_path)
    assert [third.ask() for _ in range(2)] == points and third.ask() not in points


def test_seeds_give_different_points(tmp_path):
    assert climb(made(tmp_path / "a"), 4) != climb(made(tmp_path / "b", seed=1), 4)


MESH = """
name: small
data: {dataset: digits, train: 60}
agents:
  teacher: {model: {mlp: {hidden: [8]}}}
  student: {model: {mlp: {hidden: [8]}}}
connect: [{ensemble: {teachers: teacher, student: student}}]
train: {epochs: 1, batch_size: 32}
"""


def test_a_sweep_asks_it_and_says_what_it_chose(tmp_path):
    (tmp_path / "small.yaml").write_text(MESH, encoding="utf-8")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "ours.py").write_text(
        "from kdmesh_optuna.plugin import kdmesh_samplers\n", encoding="utf-8"
    )
    source = str(Path(__file__).parent.parent / "src")
    paths = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    command = "sweep small.yaml --plugins-dir plugins --over train.optimizer.adamw.lr=log:1e-3..1e-1 --sampler optuna"
    options = "--points 2 --seeds 1 --no-controls --workers 2 --quiet"
    done = subprocess.run(
        [sys.executable, "-m", "kdmesh", *command.split(), *options.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "KDMESH_PLUGINS": "ours"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    root = tmp_path / done.stdout.splitlines()[-1]
    table = json.loads((root / "sweep_result.json").read_text())
    assert table["sampler"] == "optuna" and len(table["points"]) == 2 and len(table["final"]["trials"]) == 1
    study = made_of(root / "samplers" / "mesh")
    values = {trial.params["train.optimizer.adamw.lr"]: trial.value for trial in study.trials}
    assert values == {one["values"]["train.optimizer.adamw.lr"]: one["validation"] for one in table["points"]}
    assert study.best_params == table["arms"][0]["chosen"]
