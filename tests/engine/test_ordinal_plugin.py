"""A task that nobody has built in, ordinal regression, from public names alone, through every command.

Classes have an order: of K classes a model has K - 1 outputs, whether the class is above the first, the second, ...
(Cheng, Wang and Pollastri, "A Neural Network Approach to Ordinal Regression", 2008).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

import kdmesh
from kdmesh.cli import main

PLUGIN = """
import kdmesh
from kdmesh.offers import MetricOffer, ObjectiveOffer, TaskOffer


@kdmesh.hookimpl
def kdmesh_tasks():
    return [
        TaskOffer(
            "ordinal",
            "ordinal_parts:Ordinal",
            summary="a class of a sample, of classes in an order",
            objective="thresholds",
            metrics=("rank_error", "within_one"),
            primary="rank_error",
            watched=("rank_error",),
            spaces=("logits", "loss", "gradient"),
        )
    ]


@kdmesh.hookimpl
def kdmesh_metrics():
    return [
        MetricOffer("rank_error", "ordinal_parts:RankError", summary="distance in ranks", higher=False, lowest=0.0),
        MetricOffer("within_one", "ordinal_parts:WithinOne", summary="share near the rank", lowest=0.0, highest=1.0),
    ]


@kdmesh.hookimpl
def kdmesh_objectives():
    return [
        ObjectiveOffer("thresholds", "ordinal_parts:Thresholds", summary="is it above each class", forms=("labels",))
    ]
"""
PARTS = '''
import torch
from torch.nn import functional as F

from kdmesh.metrics import Metric
from kdmesh.objectives import Objective, at_least_float32, batchmean, kept
from kdmesh.tasks import Chance, Task


class Ordinal(Task):
    def outputs(self, table):
        return table.classes - 1

    def decide(self, scores):
        return (scores > 0).sum(1)

    def chance(self, labels):
        return Chance("rank_error", (labels - labels.median()).abs().double().mean().item(), "the middle class")


class Thresholds(Objective):
    """Binary cross-entropy of `y > k` for each k, summed over k."""

    def forward(self, student, target, *, form="labels", weights=None):
        student = kept(at_least_float32(student), weights)
        above = (target[:, None] > torch.arange(student.shape[1], device=target.device)).to(student.dtype)
        return batchmean(F.binary_cross_entropy_with_logits(student, above, reduction="none"), weights)


class RankError(Metric):
    parts = ("total", "rows")

    def __init__(self):
        self.total, self.rows = 0.0, 0

    def seen(self, distance):
        return distance.double()

    def update(self, answers):
        distance = ((answers.scores > 0).sum(1) - answers.labels).abs()
        self.total += self.seen(distance).sum().item()
        self.rows += len(answers)

    def compute(self):
        return self.total / self.rows if self.rows else None

    def undefined(self):
        return "no row"


class WithinOne(RankError):
    def seen(self, distance):
        return (distance <= 1).double()
'''
MESH = """
name: stages
task: ordinal
data: {dataset: {csv: {path: PATH, label: stage}}, seed: 1}
metrics: [{rank_error: {by: ward}}]
agents:
  a: {model: {mlp: {hidden: [16]}}}
  b: {model: {mlp: {hidden: [8]}}}
  s: {model: {mlp: {hidden: [8]}}}
connect: [{ensemble: {teachers: [a, b], student: s, objective: mse}}]
train: {epochs: 6, batch_size: 16, optimizer: {adam: {lr: 0.02}}, early_stopping: {}}
"""
RUN = ["--backend", "inline", "--quiet"]


@pytest.fixture
def mesh(tmp_path, monkeypatch):
    """A mesh file, whose task is a single-file plugin in the folder beside it."""
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", "")  # so that what a command sets is undone
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "ordinal_plugin.py").write_text(PLUGIN)
    (tmp_path / "ordinal_parts.py").write_text(PARTS)
    drawn = torch.Generator().manual_seed(4)
    x = torch.randn(300, 3, generator=drawn)
    stage = torch.bucketize(x @ torch.tensor([1.0, -1.0, 0.5]), torch.tensor([-1.5, -0.5, 0.5, 1.5]))
    rows = [f"{','.join(f'{v:.4f}' for v in row)},{'NS'[i % 2]},{y}"
            for i, (row, y) in enumerate(zip(x.tolist(), stage.tolist(), strict=True))]  # fmt: skip
    (tmp_path / "stages.csv").write_text("\n".join(["p,q,r,ward,stage", *rows]) + "\n")
    (tmp_path / "mesh.yaml").write_text(MESH.replace("PATH", "stages.csv"))
    yield tmp_path / "mesh.yaml"
    for name in ("ordinal_plugin", "ordinal_parts"):
        sys.modules.pop(name, None)


def kdmesh_of(*args: str) -> int:
    return main([args[0], *args[1:], "--plugins-dir", "plugins"])


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_public_names_are_all_that_it_uses():
    reference = (Path(__file__).parents[2] / "docs" / "plugins" / "reference.md").read_text()
    public = set(re.findall(r"^\| `(kdmesh[\w.]*)` \|", reference, re.MULTILINE))
    used = set(re.findall(r"^(?:from|import) (kdmesh[\w.]*)", PLUGIN + PARTS, re.MULTILINE))
    assert len(used) == 5 and used <= public


def test_it_is_planned_and_checked(mesh, capsys):
    assert kdmesh_of("plan", str(mesh)) == 0
    assert kdmesh_of("plan", str(mesh), "--expand") == 0
    out = capsys.readouterr().out
    assert "objective: thresholds" in out and "metric: rank_error" in out
    assert kdmesh_of("check", str(mesh)) == 0
    assert capsys.readouterr().out.rstrip().endswith("everything fits")
    assert kdmesh_of("check", str(mesh), "--set", "connect.0.ensemble.objective=kl") == 2
    assert "compares probabilities" in capsys.readouterr().err
    assert kdmesh_of("check", str(mesh), "--set", "metrics.0=r2") == 2
    assert "the labels of task ordinal are classes" in capsys.readouterr().err


def test_it_trains_with_seeds_and_controls_and_what_is_saved_loads(mesh, capsys):
    assert kdmesh_of("run", str(mesh), *RUN, "--seeds", "2", "--controls") == 0
    out = capsys.readouterr().out
    assert "rank error" in out and "lower is better" in out and "verdicts" in out
    (root,) = Path("runs/stages").iterdir()
    results = json.loads((root / "results.json").read_text())
    assert (results["task"], results["metric"], results["higher_is_better"]) == ("ordinal", "rank_error", False)
    assert [run["seed"] for run in results["runs"]] == [0, 1]
    for run in results["runs"]:
        assert set(run["controls"]["s"]) >= {"alone", "best_teacher"}
        for agent in run["agents"].values():
            test = agent["metrics"]["test"]
            assert list(test) == ["rank_error", "within_one", "rank_error_by_ward"]
            assert test["rank_error"] < 0.9 < test["within_one"] and set(test["rank_error_by_ward"]["values"]) == {
                *"NS"
            }
            assert test["rank_error_by_ward"]["worst"] >= test["rank_error"]
    table = torch.tensor(
        [[float(v) for v in line.split(",")[:3]] for line in Path("stages.csv").read_text().split()[1:]]
    )
    stage = torch.tensor([int(line.split(",")[4]) for line in Path("stages.csv").read_text().split()[1:]])
    loaded = kdmesh.load(root / "seeds" / "0" / "agents" / "s")
    answers = loaded(table)
    assert answers.shape == (300, 4) and ((answers > 0).sum(1) - stage).abs().float().mean() < 0.9


class Killed(BaseException):
    """The process is gone: no error that anything handles."""


def test_a_run_that_broke_off_goes_on_to_equal_bits(mesh, monkeypatch):
    assert kdmesh_of("run", str(mesh), *RUN, "--out", "whole") == 0
    from kdmesh.engine.teach import Teaching

    told, calls = Teaching.phase, []

    def phase(self, line):
        calls.append(line)
        if len(calls) == 3:
            raise Killed
        return told(self, line)

    with monkeypatch.context() as broken:
        broken.setattr(Teaching, "phase", phase)
        assert kdmesh_of("run", str(mesh), *RUN, "--out", "broken") != 0
    (whole,), (folder,) = Path("whole/stages").iterdir(), Path("broken/stages").iterdir()
    assert not (folder / "summary.json").exists()
    assert kdmesh_of("resume", str(folder), "--quiet") == 0
    agents = [summary_of(one)["agents"] for one in (whole, folder)]
    assert {n: a["weights_sha256"] for n, a in agents[0].items()} == {
        n: a["weights_sha256"] for n, a in agents[1].items()
    }
    assert {n: a["metrics"] for n, a in agents[0].items()} == {n: a["metrics"] for n, a in agents[1].items()}


@pytest.mark.slow  # four contracts, and processes that import what they check
def test_the_contracts_of_the_kit_hold_for_it(mesh, tmp_path):
    """As its author would write them, in a pytest of its own."""
    import os
    import subprocess

    (tmp_path / "test_ordinal.py").write_text(
        "import pytest\n"
        "from kdmesh import testing\n"
        "from kdmesh.plugins import registry\n\n"
        + "".join(
            f"class Test{n}(testing.{base}):\n    module = 'ordinal_plugin'\n{more}    @pytest.fixture\n"
            f"    def offer(self):\n        return registry().find({kind!r}, {name!r})\n\n"
            for n, (kind, name, base, more) in enumerate((
                ("tasks", "ordinal", "TaskContract", ""),
                ("metrics", "rank_error", "MetricContract", ""),
                ("metrics", "within_one", "MetricContract", ""),
                ("objectives", "thresholds", "ObjectiveContract", "    permutation_invariant = True\n"),
            ))
        )
    )  # fmt: skip
    env = {**os.environ, "KDMESH_PLUGINS_DIR": str(tmp_path / "plugins"), "PYTHONPATH": os.pathsep.join(
        [str(tmp_path), str(tmp_path / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])])}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_ordinal.py")],
        capture_output=True, text=True, env=env, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
