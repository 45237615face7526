from __future__ import annotations

from pathlib import Path

import pytest

from kdmesh.errors import MeshError
from kdmesh.spec import read
from kdmesh.spec.read import anchor, bundled, locate, parse, read_mesh

MESH = """
name: pair
data: {dataset: {csv: {path: train.csv, test_path: /abs/test.csv, target: y}}}
agents:
  t: {model: {mlp: {hidden: [8]}}, weights: t.safetensors, update: frozen}
  s: {model: mlp}
flows:
  - {from: t, to: s, as: target, objective: kl}
train: {epochs: 3, optimizer: {adamw: {lr: 1e-3}}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mesh.yaml").write_text(MESH, encoding="utf-8")
    return tmp_path


def test_a_file_is_read_with_overrides_and_paths_from_its_folder(folder):
    mesh = read_mesh(folder / "mesh.yaml", ["train.epochs=7", "flows.0.objective.kl.temperature=2"])
    assert mesh.train.epochs == 7
    assert mesh.train.optimizer.config == {"lr": 0.001}
    assert mesh.flows[0].objective.config == {"temperature": 2}
    assert mesh.data.dataset.config == {"path": str(folder / "train.csv"), "test_path": "/abs/test.csv", "target": "y"}
    assert mesh.agents["t"].weights == str(folder / "t.safetensors")
    assert mesh.agents["s"].weights is None


def test_a_mesh_without_files_is_left_as_it_is():
    mesh = parse({"agents": {"a": None}})
    assert anchor(mesh, Path("/somewhere")) == mesh


def test_addresses_are_no_relative_paths():
    mesh = parse({"agents": {"a": None}, "data": {"dataset": {"csv": {"path": "s3://bucket/x.csv"}}}})
    assert anchor(mesh, Path("/f")).data.dataset.config["path"] == "s3://bucket/x.csv"


def test_what_is_dumped_parses_to_the_same_mesh(folder):
    mesh = read_mesh(folder / "mesh.yaml")
    assert parse(mesh.dump()) == mesh


def test_every_bundled_mesh_is_read_by_its_name():
    for name, path in bundled().items():
        assert locate(name) == path
        assert read_mesh(name).description, name


def test_a_file_goes_before_a_bundled_mesh(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "bundled", lambda: {"ensemble": tmp_path / "bundled" / "ensemble.yaml"})
    monkeypatch.chdir(tmp_path)
    assert locate("ensemble") == tmp_path / "bundled" / "ensemble.yaml"
    Path("ensemble").mkdir()
    assert locate("ensemble") == tmp_path / "bundled" / "ensemble.yaml"
    Path("ensemble").rmdir()
    Path("ensemble").touch()
    assert locate("ensemble") == Path("ensemble")


def test_an_unknown_name_suggests_a_bundled_one(monkeypatch):
    monkeypatch.setattr(read, "bundled", lambda: {"ensemble": Path("e"), "chain": Path("c")})
    with pytest.raises(MeshError) as caught:
        locate("ensembel")
    assert caught.value.instead == "did you mean 'ensemble'? bundled: chain, ensemble"


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "is empty"),
        (b"- 1", "holds a list, not a mesh"),
        (b"a: \xff", "is not UTF-8 text"),
        (b"#" * (1 << 20) + b"\n", "is larger than 1 MiB"),
    ],
)
def test_files_that_are_no_mesh_are_refused(tmp_path, raw, what):
    path = tmp_path / "m.yaml"
    path.write_bytes(raw)
    with pytest.raises(MeshError, match=what) as caught:
        read_mesh(path)
    assert caught.value.file == str(path)
