"""`kdmesh audit` tells members by their losses: of an agent, and of its teachers through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import kdmesh
from kdmesh.cli import main

MLP = {"mlp": {"hidden": [64]}}


def run(out: Path, **more: Any) -> Path:
    """A teacher that learns few samples by heart, and a student of its that sees others."""
    fields = {
        "name": "leak",
        "data": {"dataset": "digits", "train": 150, "transfer": 300, "test": 0.3},
        "agents": {"t": {"model": MLP}, "s": {"model": MLP}},
        "flows": [
            {"from": "labels", "to": "t", "objective": "ce"},
            {"from": "t", "to": "s", "objective": "kl", "stream": "transfer"},
        ],
        "train": {"epochs": 40, "batch_size": 16, "optimizer": {"adamw": {"lr": 3e-3, "weight_decay": 0}}},
        **more,
    }
    (out / "mesh.yaml").write_text(json.dumps(fields))
    return Path(kdmesh.Mesh.read(str(out / "mesh.yaml")).run(out=str(out / "runs")).folder)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("leaky"))


def test_a_run_is_audited(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(leaky), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {(one["agent"], one["learned_by"]): one for one in found["membership"]}
    assert {*rows} == {("t", "t"), ("s", "s"), ("s", "t")} and not found["left_out"]
    assert [rows[key]["members"] for key in (("t", "t"), ("s", "s"), ("s", "t"))] == [150, 300, 150]
    test = len(kdmesh.Mesh.read(str(leaky / "resolved.yaml")).samples("test", "t")[0])
    assert all(one["others"] == test and one["wrong"] <= 0.01 * test for one in rows.values())
    assert rows["t", "t"]["accuracy"] == 1.0 > rows["t", "t"]["accuracy_others"]
    low, _ = rows["t", "t"]["auc_interval"]
    assert low > 0.5, "a teacher that learned by heart is found out"
    assert main(["audit", str(leaky)]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines()) and "By guessing" in " ".join(out.split())


@pytest.mark.parametrize("rate", ["0", "1", "nan"])
def test_a_rate_that_is_none_is_refused(leaky: Path, rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(leaky), "--rate", rate]) == 2
    assert "rate" in capsys.readouterr().err


def test_what_cannot_be_audited_is_told(leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(tmp_path)]) == 2
    assert "is no folder of a run" in " ".join(capsys.readouterr().err.split())
    whole = json.loads((leaky / "manifest.json").read_text())
    (copy := tmp_path / "copy").mkdir()
    (copy / "resolved.yaml").write_bytes((leaky / "resolved.yaml").read_bytes())
    whole["data"]["x_sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(whole))
    assert main(["audit", str(copy)]) == 2
    assert "has other samples now" in " ".join(capsys.readouterr().err.split())
    (copy / "manifest.json").write_bytes((leaky / "manifest.json").read_bytes())
    assert main(["audit", str(copy)]) == 2
    assert "no agent can be audited: t: it has no folder in the run" in " ".join(capsys.readouterr().err.split())
