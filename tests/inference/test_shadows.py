"""Shadow runs on halves of the samples: who learned what in them, kept and gone on from, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kdmesh
from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.inference.auditing.opened import Opened, opened
from kdmesh.inference.auditing.shadows import half, pool_of, shadows
from kdmesh.spec.read import read_mesh
from kdmesh.streams.stream import resolve

MLP = {"mlp": {"hidden": [48]}}


def run(out: Path, **more: Any) -> Path:
    """A teacher that learns few samples by heart, and a student of its that sees others; canaries among them."""
    fields = {
        "name": "shadowed",
        "data": {
            "dataset": "digits", "train": 100, "transfer": 200, "validation": 50, "test": 300,
            "canaries": {"kind": "random", "count": 8},
        },
        "agents": {"t": {"model": MLP}, "s": {"model": MLP}},
        "flows": [
            {"from": "labels", "to": "t", "objective": "ce"},
            {"from": "t", "to": "s", "objective": "kl", "stream": "transfer"},
        ],
        "train": {"epochs": 30, "batch_size": 20, "optimizer": {"adamw": {"lr": 3e-3, "weight_decay": 0}}},
        "placement": "together",
        **more,
    }  # fmt: skip
    return Path(kdmesh.Mesh(**fields).run(out=str(out / "runs")).folder)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("shadowed"))


@pytest.fixture
def found(leaky: Path) -> Opened:
    return opened(leaky, read_mesh(leaky / "resolved.yaml"))


def test_halves_are_counterparts_and_all_else_stays(found: Opened) -> None:
    pool = pool_of(found)
    assert found.table.planted is not None and not torch.isin(found.table.planted.rows, pool).any()
    assert len(pool) == 200 and found.learned["t"][pool].sum() == 100 and found.held[pool].sum() == 100
    trained, seeds = [], set()
    for number in range(4):
        spec, table = half(found, pool, number)
        assert spec.data is not None and table.planted is None
        streams = resolve(table, spec.data, spec.streams)
        for name in ("transfer", "validation"):
            assert torch.equal(streams[name].rows, found.streams[name].rows)
        assert torch.equal(torch.cat([streams["train"].rows, streams["test"].rows]).sort().values, pool)
        trained.append(streams["train"].rows)
        seeds.add(spec.seed)
    for one, other in ((trained[0], trained[1]), (trained[2], trained[3])):
        assert torch.equal(torch.cat([one, other]).sort().values, pool) and len(one) == 100
    assert not torch.equal(trained[0], trained[2]) and len(seeds) == 4


def test_shadows_tell_more_than_losses_and_are_gone_on_from(
    leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    shutil.copytree(leaky, root)
    few = ["--candidates", "7", "--json"]
    assert main(["audit", str(root), "--shadows", "4", *few]) == 0
    first = capsys.readouterr()
    assert "shadow 4 of 4" in first.err
    kept = {path.name: path.read_bytes() for path in (root / "shadows").iterdir()}
    assert sorted(kept) == [f"{number}.safetensors" for number in range(4)]
    rows = {(one["agent"], one["learned_by"], one["by"]): one for one in json.loads(first.out)["membership"]}
    assert [*rows] == [
        ("t", "t", "loss"), ("t", "t", "shadows"), ("s", "s", "loss"), ("s", "t", "loss"), ("s", "t", "shadows")
    ]  # fmt: skip
    ratio, loss = rows["t", "t", "shadows"], rows["t", "t", "loss"]
    assert ratio["members"] == ratio["others"] == 100 and loss["others"] == 300
    assert ratio["auc_interval"][0] > 0.5 and ratio["auc"] > loss["auc"]
    (root / "shadows" / "at-work").mkdir()  # what a kill leaves
    (root / "shadows" / "3.safetensors").unlink()
    assert main(["audit", str(root), "--shadows", "4", *few]) == 0
    again = capsys.readouterr()
    assert again.err.count("shadow ") == 1 and json.loads(again.out) == json.loads(first.out)
    assert {path.name: path.read_bytes() for path in (root / "shadows").iterdir()} == kept
    (root / "shadows" / "2.safetensors").write_bytes(b"half")
    assert main(["audit", str(root), "--shadows", "4", *few]) == 2
    assert "2.safetensors" in (said := " ".join(capsys.readouterr().err.split())) and "they are made again" in said


def test_what_shadows_say_is_of_who_learned_it(leaky: Path, tmp_path: Path) -> None:
    shutil.copytree(leaky, tmp_path / "run")
    found = opened(tmp_path / "run", read_mesh(leaky / "resolved.yaml"))
    from kdmesh.cli.audit import _train

    known = shadows(found, 2, _train)
    pool = pool_of(found)
    learned = known.learned["t"]
    assert (learned[0] != learned[1]).all() and learned[0].sum() == 100
    assert not known.learned["s"].any() and np.isfinite(known.scores["s"]).all()
    assert known.scores["t"][0][learned[0]].mean() > known.scores["t"][0][~learned[0]].mean()
    assert torch.equal(known.pool, pool)
    other = opened(run(tmp_path, seed=1), read_mesh(leaky / "resolved.yaml").model_copy(update={"seed": 1}))
    shutil.copytree(tmp_path / "run" / "shadows", other.root / "shadows")
    with pytest.raises(MeshError, match="shadow of another run"):
        shadows(other, 2, _train)


@pytest.mark.parametrize("count", ["3", "-2", "2000"])
def test_a_number_that_makes_no_pairs(leaky: Path, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(leaky), "--shadows", count]) == 2
    assert "an even number from 2" in " ".join(capsys.readouterr().err.split())


def test_runs_that_no_half_can_stand_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"dataset": "digits", "train": 60, "transfer": 60, "prepare": [{"columns": "pixels", "scale": "standard"}]}
    root = run(tmp_path, data=data, train={"epochs": 1, "batch_size": 20})
    assert main(["audit", str(root), "--shadows", "2"]) == 2
    assert "would have to learn anew" in " ".join(capsys.readouterr().err.split())
    assert not (root / "shadows").exists()
