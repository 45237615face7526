"""`kdmesh run` in a process that is killed, and `kdmesh resume` in another: the weights of a run that nobody broke."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.cli import main

pytestmark = pytest.mark.long

PLUGIN = '''
import torch
from kdmesh import hookimpl
from kdmesh.consensus import Rule
from kdmesh.objectives import Objective, batchmean, comparable
from kdmesh.offers import Config, ConsensusOffer, ObjectiveOffer, SignalOffer


class ClassMeans:
    def __call__(self, value, *, labels, classes):
        rows, counts = value.flatten(1), torch.bincount(labels, minlength=classes)
        sums = rows.new_zeros(classes, rows.shape[1]).index_add(0, labels, rows)
        return sums / counts.clamp(min=1)[:, None], counts > 0


class Prototype(Objective):
    def forward(self, student, target, *, form="hidden", weights=None, labels=None):
        known = None if weights is None else weights[labels]
        own, theirs = comparable(student.flatten(1), target[labels], known)
        return batchmean((own - theirs).square(), known)


class Turning(Rule):
    """Each source in turn has more of the say, by what the reader's time is."""

    def forward(self, values, *, logits, labels=None, present=None, **now):
        at = sum(now.values())
        shares = torch.tensor([1.0 + (at % 3), 1.0 + (at // 2) % 5]).to(values)
        return (shares / shares.sum())[:, None, None].mul(values).sum(0)


@hookimpl
def kdmesh_signals():
    needs = ("labels", "classes")
    return [
        SignalOffer("own_means", f"{__name__}:ClassMeans", reads="hidden", form="hidden", needs=needs, aligned=False)
    ]


@hookimpl
def kdmesh_objectives():
    more = {"reads": "hidden", "forms": ("hidden",), "needs": ("labels",), "aligned": False}
    return [ObjectiveOffer("to_prototype", f"{__name__}:Prototype", Config, **more)]


@hookimpl
def kdmesh_consensus():
    needs = ("step", "epoch", "round")
    return [ConsensusOffer(f"by_{one}", f"{__name__}:Turning", Config, needs=(one,)) for one in needs]
'''
AGENTS = """
data: {dataset: {csv: {path: rows.csv}}, test: 0.2, validation: 0.2}
agents: {a: {model: {mlp: {hidden: [6]}}}, b: {model: {mlp: {hidden: [6]}}}, c: {model: {mlp: {hidden: [6]}}}}
train: {batch_size: 8, optimizer: {adamw: {lr: 0.01}}, epochs: 3}
"""
STREAMS = """
streams:
  public: {of: train, size: 30}
  left: {of: train, rest_of: public, shards: {by: dirichlet, of: [a, b]}}
  mine: {of: train, where: {site: [x, z]}}
flows:
  - {from: labels, to: c, objective: ce, stream: mine}
  - {from: labels, to: [a, b], objective: ce, stream: left}
  - {from: [a, b], to: c, objective: kl, stream: public, refresh: epoch}
  - {from: c, to: [a, b], objective: kl, stream: public, refresh: epoch}
"""
UNALIGNED = """
streams:
  one: {of: train, where: {site: x}}
  two: {of: train, rest_of: one}
consensus: {prototypes: mean}
flows:
  - {from: labels, to: a, objective: ce, stream: one}
  - {from: labels, to: b, objective: ce, stream: two}
  - {from: labels, to: c, objective: ce}
  - {from: a, to: prototypes, signal: own_means, tap: layers.0, stream: one, refresh: epoch}
  - {from: b, to: prototypes, signal: own_means, tap: layers.0, stream: two, refresh: epoch}
  - {from: prototypes, to: a, objective: to_prototype, tap: layers.0, stream: one, weight: 0.5}
  - {from: prototypes, to: b, objective: to_prototype, tap: layers.0, stream: two, weight: 0.5}
"""
TIMED = """
consensus: {early: by_step, late: by_epoch, turned: by_round}
flows:
  - {from: labels, to: [a, b, c], objective: ce}
  - {from: [a, b], to: early, refresh: step}
  - {from: early, to: c, objective: kl}
  - {from: [b, c], to: late, refresh: epoch}
  - {from: late, to: a, objective: kl}
  - {from: [a, c], to: turned, refresh: round}
  - {from: turned, to: b, objective: kl}
program: [{of: [a, b, c], repeat: 3, do: [{lesson: main, epochs: 2}, {publish: [a, c]}]}]
"""
EVERY = """
streams:
  one: {of: train, where: {site: [x]}}
  two: {of: train, rest_of: one}
consensus: {prototypes: mean, early: by_step, late: by_epoch, turned: by_round}
flows:
  - {from: labels, to: a, objective: ce, stream: one}
  - {from: labels, to: b, objective: ce, stream: two}
  - {from: labels, to: c, objective: ce}
  - {from: a, to: prototypes, signal: own_means, tap: layers.0, stream: one, refresh: epoch}
  - {from: b, to: prototypes, signal: own_means, tap: layers.0, stream: two, refresh: epoch}
  - {from: prototypes, to: a, objective: to_prototype, tap: layers.0, stream: one, weight: 0.5}
  - {from: prototypes, to: b, objective: to_prototype, tap: layers.0, stream: two, weight: 0.5}
  - {from: [a, b], to: early, refresh: step, stream: two}
  - {from: early, to: c, objective: kl}
  - {from: [b, c], to: late, refresh: epoch, stream: one}
  - {from: late, to: a, objective: kl}
  - {from: [a, c], to: turned, refresh: round, stream: two}
  - {from: turned, to: b, objective: kl}
program: [{of: [a, b, c], repeat: 3, do: [{lesson: main, epochs: 2}, {publish: [a, c]}]}]
"""
ALONE = {"streams": STREAMS, "unaligned": UNALIGNED, "timed": TIMED}
DIES = """
import os, signal, sys
from kdmesh.backends.inline import InlineBackend
from kdmesh.cli import main

left, inner = [int(sys.argv[1])], InlineBackend.call


def call(self, *args, **options):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(self, *args, **options)


InlineBackend.call = call
sys.exit(main(sys.argv[2:]))
"""


def weights(folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {name: (agent["weights_sha256"], agent["metrics"]) for name, agent in summary["agents"].items()}


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(EVERY, id="every"),
        *(pytest.param(more, id=name, marks=pytest.mark.slow) for name, more in ALONE.items()),
    ],
)
def test_killed_and_resumed_it_has_equal_bits(more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "killed_plugin.py").write_text(PLUGIN, encoding="utf-8")
    rows = [f"{i * 37 % 101},{i * 53 % 89},{i * 17 % 61},{'xyz'[i % 3]},{i * i % 3}" for i in range(100)]
    (tmp_path / "rows.csv").write_text("\n".join(["p,q,r,site,label", *rows]), encoding="utf-8")
    (tmp_path / "mesh.yaml").write_text(AGENTS + more, encoding="utf-8")
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(tmp_path / "plugins"))
    monkeypatch.setenv(
        "PYTHONPATH", f"{Path(kdmesh.__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    calls, inner = [0], InlineBackend.call

    def call(self: Any, *args: Any, **options: Any) -> Any:
        calls[0] += 1
        return inner(self, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    run = [
        "run",
        str(tmp_path / "mesh.yaml"),
        "--backend",
        "inline",
        "--checkpoint-seconds",
        "0",
        "--quiet",
        "--no-report",
    ]
    assert main([*run, "--out", str(tmp_path / "whole")]) == 0
    sys.modules.pop("killed_plugin", None)

    def process(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)

    killed = process("-c", DIES, str(3 * calls[0] // 5), *run, "--out", str(tmp_path / "broken"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (folder,) = (tmp_path / "broken").glob("*/*")
    assert not (folder / "summary.json").exists() and [*folder.glob("checkpoints/*/*/manifest.json")]
    resumed = process("-m", "kdmesh", "resume", str(folder), "--quiet", "--no-report")
    assert resumed.returncode == 0, resumed.stderr
    assert weights(folder) == weights(*(tmp_path / "whole").glob("*/*"))
