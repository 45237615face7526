"""Latencies of a finished run: measured in fresh processes, kept agent by agent, and nothing that a run depends on."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kdmesh.cli import main
from kdmesh.contracts.run_files import LATENCY
from kdmesh.engine import latency
from kdmesh.engine.lock import held
from kdmesh.engine.sums import fault
from kdmesh.errors import MeshError

ONE = """
name: one
data: {dataset: digits, train: 64, validation: 16, test: 3}
agents: {s: {model: {mlp: {hidden: [4]}}}}
train: {steps: 2}
"""


def batches(p50: float = 1.0) -> dict[str, Any]:
    one = {"calls": 20, "p50_ms": p50, "p95_ms": 2 * p50, "samples_per_s": 7.0}
    return {"threads": 1, "samples": 24, "load": 0.1, "1": one, "64": {**one, "p50_ms": 4 * p50}}


def kept(folder: Path) -> dict[str, Any]:
    return json.loads((folder / LATENCY).read_text())


@pytest.fixture
def orders(monkeypatch) -> list[str]:
    """Agents that were measured, without a process."""
    found: list[str] = []

    def fresh(order, content):
        found.append(Path(order.folder).name)
        return batches()

    monkeypatch.setattr(latency, "_fresh", fresh)
    return found


def test_run_measure_times_each_agent_in_a_fresh_process(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(latency, "measure", partial(latency.measure, warm_up=0.0, budget=0.0))
    (tmp_path / "one.yaml").write_text(ONE)
    assert main(["run", str(tmp_path / "one.yaml"), "--measure", "--out", str(tmp_path), "--backend", "inline"]) == 0
    (folder,) = (tmp_path / "one").iterdir()
    found = kept(folder)
    one = found["agents"]["s"]
    assert found["inputs"] == {"stream": "test", "random": False} and found["failed"] == {} and found["seed"] == 0
    assert one["samples"] == 3 and one["threads"] == 1
    for batch in one["batches"].values():
        assert 0 < batch["p50_ms"] <= batch["p95_ms"] and batch["calls"] >= 20 and batch["samples_per_s"] > 0
    assert found["machine"]["cpu"] and found["machine"]["torch"]
    out = capsys.readouterr().out
    assert "s: 3 samples, repeated to a batch of 64" in out and "each agent in a fresh process" in out
    assert max(len(line) for line in out.splitlines() if str(folder) not in line) <= 80
    assert fault(folder, []) == ""  # the run's sums know nothing of it


def test_what_was_measured_is_kept_and_the_rest_is_measured_later(runs, orders):
    folder = runs["small"]
    latency.measure(folder)
    assert orders == ["t1", "t2", "s"] and list(kept(folder)["agents"]) == orders
    latency.measure(folder)
    assert orders == ["t1", "t2", "s"]
    found = kept(folder)
    del found["agents"]["t2"]
    found["agents"]["s"]["of"]["weights_sha256"] = "of other weights"
    (folder / LATENCY).write_text(json.dumps(found))
    latency.measure(folder)
    assert orders == ["t1", "t2", "s", "t2", "s"]
    (folder / LATENCY).write_text(json.dumps({**kept(folder), "machine": {"node": "another"}}))
    latency.measure(folder)
    assert len(orders) == 8


def test_an_agent_that_fails_spoils_no_other_and_is_said(runs, monkeypatch, capsys):
    folder = runs["small"]

    def fresh(order, content):
        if Path(order.folder).name == "t1":
            raise MeshError("its process was ended by signal 9: no memory")
        return batches()

    monkeypatch.setattr(latency, "_fresh", fresh)
    shutil.rmtree(folder / "agents" / "t2")
    assert main(["report", str(folder), "--measure"]) == 0
    found, said = kept(folder), capsys.readouterr()
    assert (
        list(found["agents"]) == ["s"]
        and found["failed"]["t2"] == "it has no folder: it was dropped, or somebody took it away"
    )
    assert "t1 (1 of 3): not measured: its process was ended by signal 9" in said.err
    assert "t1 was not measured" in said.out and "t1 was not measured" in (folder / "report.html").read_text()


def test_interrupted_measuring_leaves_the_run_finished_and_goes_on(runs, orders, monkeypatch, capsys):
    folder, whole = runs["small"], latency._fresh

    def interrupted(order, content):
        if Path(order.folder).name == "t2":
            raise KeyboardInterrupt
        return whole(order, content)

    monkeypatch.setattr(latency, "_fresh", interrupted)
    assert main(["report", str(folder), "--measure"]) == 130
    assert f"kdmesh report {folder} --measure" in capsys.readouterr().err
    assert list(kept(folder)["agents"]) == ["t1"]
    monkeypatch.setattr(latency, "_fresh", whole)
    assert main(["report", str(folder), "--measure"]) == 0
    assert orders == ["t1", "t2", "s"]


def test_of_data_from_python_inputs_are_random_and_that_is_said(runs, orders, capsys):
    assert main(["report", str(runs["small"]), "--measure"]) == 0
    assert kept(runs["small"])["inputs"] == {"stream": None, "random": True}
    assert "random numbers" in capsys.readouterr().out


def test_of_several_seeds_one_is_measured(runs, orders):
    found = latency.measure(runs["several"])
    assert found["seed"] == 0 and orders == ["t1", "t2", "s"] and (runs["several"] / LATENCY).is_file()


def test_what_cannot_be_measured_is_refused(runs, orders):
    folder = runs["small"]
    with held(folder), pytest.raises(MeshError, match="another process is using"):
        latency.measure(folder)
    runs.unfinished(folder)
    with pytest.raises(MeshError, match="no seed of this run has been measured yet"):
        latency.measure(folder)
    with pytest.raises(MeshError, match="not a run's folder"):
        latency.measure(folder / "agents")
    assert orders == []


def test_a_mesh_that_names_code_is_refused_where_that_is_asked_for(tmp_path, capsys, orders):
    text = ONE.replace("{model: {mlp: {hidden: [4]}}}", "{model: 'own_model:Net'}")
    (tmp_path / "own_model.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    (tmp_path / "odd.yaml").write_text(text)
    assert main(["run", str(tmp_path / "odd.yaml"), "--out", str(tmp_path), "--backend", "inline"]) == 0
    (folder,) = (tmp_path / "one").iterdir()
    assert main(["report", str(folder), "--measure", "--no-code"]) == 2
    assert "would import own_model:Net" in capsys.readouterr().err and orders == []
    assert main(["report", str(folder), "--measure"]) == 0 and orders == ["s"]


def test_a_process_that_dies_is_told_by_what_it_said_last(monkeypatch, tmp_path):
    from kdmesh.hosts.latency import Order

    order = Order(str(tmp_path), "cpu", 1, False, [])
    monkeypatch.setattr(latency.sys, "executable", "/bin/false")
    with pytest.raises(MeshError, match="ended with code 1: it said nothing"):
        latency._fresh(order, b"x" * 2**20)
