"""Data that never end, or are too much for this machine, are refused before they are read."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import kdmesh
from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.placement import sizes
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.streams import host_memory
from kdmesh.tables import files as _files

OFFERS = {offer.name: offer for offer in DATASETS}
READERS = {"csv": ".csv", "jsonl": ".jsonl", "text_file": ".txt", "arrays": ".npz", "text": ".csv"}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("what", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_unread(tmp_path, name, what):
    path = tmp_path / f"data{READERS[name]}"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    if (name, what) == ("text", "folder"):
        pytest.skip("a folder may be a data set of its own")
    with pytest.raises(MeshError, match=f"is a {what}") as error:
        OFFERS[name].make({"path": str(path)})
    assert error.value.where.startswith(f"data.dataset.{name}")


def test_a_pipe_among_idx_files(tmp_path):
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(MeshError, match="is a pipe"):
        OFFERS["idx"].make({"folder": str(tmp_path)})


@pytest.fixture
def small(monkeypatch):
    """A machine that takes files of a megabyte."""
    monkeypatch.setattr(_files, "memory", lambda: 4 * 2**20)


def test_what_unpacks_without_end_is_given_up(tmp_path, small):
    with gzip.open(tmp_path / "big.csv.gz", "wb") as file:
        for _ in range(20):
            file.write(b"0" * 2**20)
    assert (tmp_path / "big.csv.gz").stat().st_size < 2**16
    with pytest.raises(MeshError, match=r"at least [\d,]+ bytes.*this machine takes 1,048,576"):
        OFFERS["csv"].make({"path": str(tmp_path / "big.csv.gz")})
    np.savez_compressed(tmp_path / "big.npz", x=np.zeros((2**20, 4)), y=np.zeros(2**20))
    with pytest.raises(MeshError, match="this machine takes"):
        OFFERS["arrays"].make({"path": str(tmp_path / "big.npz")})
    assert zipfile.is_zipfile(tmp_path / "big.npz")


def test_large_plain_files_are_refused_by_their_size(tmp_path, small):
    with (tmp_path / "big.csv").open("wb") as file:
        file.truncate(2**21)
    with pytest.raises(MeshError, match="holds 2,097,152 bytes"):
        OFFERS["csv"].make({"path": str(tmp_path / "big.csv")})


def test_classes_that_no_machine_holds_are_refused_with_numbers(tmp_path: Path):
    rows = [f"{i % 7},{i % 2}" for i in range(20)]
    (tmp_path / "a.csv").write_text("\n".join(["a,label", *rows, "1,999999999"]) + "\n")
    mesh = {
        "data": {"dataset": {"csv": {"path": str(tmp_path / "a.csv"), "classes": 10**9}}},
        "agents": {"a": {"model": {"mlp": {"hidden": [400]}}}},
    }
    with pytest.raises(MeshError, match=r"needs [\d,.]+ GiB of memory.*: a .*1,000,000,000 classes") as error:
        examine(make_plan(parse(mesh), registry()))
    assert error.value.where == "agents.a.model"


def test_frozen_weights_need_less_than_those_that_train(monkeypatch):
    x = torch.randn(40, 100)
    mesh = kdmesh.Mesh(data=kdmesh.data((x, x[:, :2].argmax(1))), train={"batch_size": 8})
    mesh.agent("t", {"mlp": {"hidden": [1000]}}, update="frozen")
    mesh.agent("s", {"mlp": {"hidden": [4]}})
    mesh.connect("ensemble", teachers="t", student="s", objective="kl")
    monkeypatch.setattr(host_memory, "memory", lambda: sizes.PROCESS + 2**20)  # t: 103,002 weights of 4 bytes
    assert examine(mesh.plan(), {}, mesh.table)
    mesh._fields["agents"]["t"]["update"] = "grad"
    with pytest.raises(MeshError, match=r": t 0\.0 \(103,002 parameters, 0\.0; gradients"):
        examine(mesh.plan(), {}, mesh.table)


def test_a_file_that_unpacks_as_no_data_do_is_given_up_whatever_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "SMALL", 2**20)
    for name, kind in (("csv", "csv"), ("jsonl", "jsonl"), ("text", "csv")):
        path = tmp_path / f"bomb.{kind}.gz"
        with gzip.open(path, "wb") as file:
            file.write(b"0" * (16 * 2**20))
        with pytest.raises(MeshError, match="unpacks to more than 500 times its size") as error:
            OFFERS[name].make({"path": str(path)})
        assert error.value.where == f"data.dataset.{name}.path"


def test_the_emptiest_table_is_read(tmp_path, monkeypatch):
    """Zeros alone, with a label: the most that data can be packed."""
    monkeypatch.setattr(_files, "SMALL", 2**16)
    row = ",".join("0" * 100)
    with gzip.open(tmp_path / "zeros.csv.gz", "wt") as file:
        file.write(
            ",".join(f"f{i}" for i in range(100)) + ",label\n" + "".join(f"{row},{i % 2}\n" for i in range(3000))
        )
    assert len(OFFERS["csv"].make({"path": str(tmp_path / "zeros.csv.gz"), "features": ["f0"]})) == 3000


def test_tables_of_more_cells_than_fit_are_refused(tmp_path, small):
    (tmp_path / "a.csv").write_text("x,label\n" + "1,0\n" * 20_000)
    (tmp_path / "a.jsonl").write_text('{"x": 1, "label": 0}\n' * 20_000)
    for name in ("csv", "jsonl"):
        with pytest.raises(MeshError, match=r"at least 32,770 cells.*this machine takes 32,768"):
            OFFERS[name].make({"path": str(tmp_path / f"a.{name}")})


def test_a_parquet_file_of_a_value_that_all_rows_repeat_is_refused_before_it_fills_memory(tmp_path, small):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    offer = OFFERS["text"]
    parquet.write_table(arrow.table({"text": ["x" * 2**10] * 8192, "label": [0] * 8192}), tmp_path / "long.parquet")
    assert (tmp_path / "long.parquet").stat().st_size < 2**16
    with pytest.raises(MeshError, match=r"long\.parquet holds [\d,]+ bytes.*this machine takes 1,048,576"):
        offer.make({"path": str(tmp_path / "long.parquet"), "label": "label"})
    parquet.write_table(arrow.table({"text": ["x"] * 20_000, "label": [0] * 20_000}), tmp_path / "many.parquet")
    with pytest.raises(MeshError, match="at least 40,000 cells"):
        offer.make({"path": str(tmp_path / "many.parquet"), "label": "label"})
