"""Budgets of endpoints in comparisons, sweeps and runs of several parts: a spent one pauses, and more goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from served_meshes import classified, tops

from kdmesh.cli import main
from kdmesh.compare import child, making, pool
from kdmesh.endpoints import client
from kdmesh.engine.experiment import Experiment
from kdmesh.errors import MeshError, RunPaused

ASKED = 1 + 45  # a look at it, and each sample once
SEARCHED = ASKED - 9  # without those of test
QUIET = ["--quiet", "--no-report"]
ORDER = child.Order({}, "at", None, [], "inline", None, False, False, 60.0, 600.0, "resume")


@pytest.fixture(autouse=True)
def at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(making, "Pool", Here)
    monkeypatch.setenv("KDMESH_STORE", "off")  # or later trials would find what the first one asked
    monkeypatch.chdir(tmp_path)


class Here:
    """A pool that makes trials itself, one after the other, and tells of them as their processes do."""

    def __init__(self, workers, told):
        self.told = told

    def run(self, orders):
        for trial, order in orders:
            self.told(trial, {"begun": True})
            told = {"error": ""}
            try:
                Experiment(child.request(order)).run()
            except MeshError as error:
                told = child.failure(error)
            self.told(trial, {"ended": True, **told})


@pytest.fixture
def server(served):
    return served(tops=tops)


def written(tmp_path, server, **api):
    mesh = classified(tmp_path, server.url, concurrency=1, **api)
    (tmp_path / "m.yaml").write_text(json.dumps(mesh), encoding="utf-8")
    return server


def folder(name):
    """Of the one command that wrote a file of this name."""
    (path,) = Path("runs").glob(f"*/*/{name}")
    return path.parent


def asked_about(server):
    """How often each sample was asked about."""
    bodies = [json.dumps(body) for body in server.bodies]
    return {bodies.count(one) for one in set(bodies) if "Which of these" in one}


def test_a_comparison_pauses_with_the_sum_and_goes_on_with_more(server, tmp_path, capsys):
    written(tmp_path, server, budget={"requests": 20})
    asked = ["compare", "m.yaml", "--variant", "fast: train.optimizer.adamw.lr=0.01", "--seeds", "1", *QUIET]
    assert main(asked) == 1
    root, said = folder("compare.json"), capsys.readouterr().err
    assert len(server.bodies) == 2 + 40  # the command itself looks once for each contender
    assert "2 of 2 trials are paused; m, seed 0: the budget of gpt is spent: 20 requests of 20" in said
    assert "all trials together have asked gpt 40 requests, " in said
    assert f"kdmesh resume {root} --more gpt.requests=N, which adds so many to each trial" in said
    assert not (root / "comparison.json").exists()
    assert main(["resume", str(root), *QUIET]) == 1 and len(server.bodies) == 42  # nothing is left to spend
    assert main(["resume", str(root), *QUIET, "--more", "gpt.requests=26", "--more", "gpt.tokens=5"]) == 2
    assert main(["resume", str(root), *QUIET, "--more", "gpt.requests=26"]) == 0, capsys.readouterr().err
    assert len(json.loads((root / "comparison.json").read_text())["trials"]) == 2
    told = [json.loads(path.read_text()) for path in root.glob("trials/*/*/summary.json")]
    assert [one["endpoints"]["gpt"]["requests"] for one in told] == [ASKED] * 2
    assert all(one["controls"]["student"].keys() >= {"alone"} for one in told)
    assert asked_about(server) == {2}  # once in each trial
    assert main(["resume", str(root), *QUIET, "--more", "gpt.requests=5"]) == 2
    assert "no trial waits for more" in capsys.readouterr().err


def test_a_sweep_pauses_before_it_chooses_and_goes_on_with_more(server, tmp_path, capsys):
    written(tmp_path, server, budget={"requests": SEARCHED - 1})
    asked = ["sweep", "m.yaml", "--over", "train.optimizer.adamw.lr=0.01,0.001", "--seeds", "1", "--no-controls"]
    assert main([*asked, *QUIET]) == 1
    root, said = folder("sweep.json"), capsys.readouterr().err
    assert f"the budget of gpt is spent: {SEARCHED - 1} requests" in said and not (root / "chosen.json").exists()
    assert main(["resume", str(root), *QUIET, "--more", "gpt.requests=1"]) == 1
    assert "1 of 3 trials are paused" in capsys.readouterr().err and (root / "chosen.json").exists()
    assert main(["resume", str(root), *QUIET, "--more", f"gpt.requests={ASKED - SEARCHED + 1}"]) == 0
    told = [json.loads(path.read_text()) for path in root.glob("trials/**/summary.json")]
    assert sorted(one["endpoints"]["gpt"]["requests"] for one in told) == [SEARCHED, SEARCHED, ASKED]
    assert asked_about(server) == {1, 3}  # of test once, of what was searched by in each trial


def test_a_run_of_several_seeds_pauses_where_the_first_has_spent_all(server, tmp_path, capsys):
    written(tmp_path, server, budget={"requests": 20})
    assert main(["run", "m.yaml", "--seeds", "2", "--backend", "inline", *QUIET]) == 1
    root = folder("manifest.json")
    said = capsys.readouterr().err
    assert "the budget of gpt is spent: 20 requests of 20" in said and len(server.bodies) == 20
    assert main(["resume", str(root), *QUIET, "--more", "gpt.requests=26"]) == 0, capsys.readouterr().err
    assert asked_about(server) == {1}  # for both seeds
    assert [path.name for path in sorted((root / "seeds").iterdir())] == ["0", "1"]


def test_a_pool_hands_on_that_a_process_is_paused(monkeypatch):
    heard, said = [], json.dumps({"error": "it stands still", "code": 1, "paused": ["it stands still", "here"]})
    program = f"import sys; print({said!r}, flush=True); sys.exit(1)"
    monkeypatch.setattr(pool.Pool, "command", (sys.executable, "-c", program))
    pool.Pool(1, lambda trial, what: heard.append(what)).run([("a", ORDER)])
    assert heard[-1] == {"ended": True, "error": "it stands still", "code": 1, "paused": ["it stands still", "here"]}
    assert child.failure(RunPaused("it stands still", where="here"))["paused"] == ["it stands still", "here"]
    assert "paused" not in child.failure(MeshError("it failed"))
