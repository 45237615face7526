"""Tables whose rows are read later: the numbers of those in memory, in a file in their place."""

from __future__ import annotations

import csv
import gc
import json
import pickle
import warnings
from pathlib import Path

import pytest
import torch

from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.streams.in_file import InFile
from kdmesh.streams.unread import Unread
from kdmesh.tables.unread_rows import AT_ONCE

OFFERS = {offer.name: offer for offer in DATASETS}
ROWS = [
    {"a": row * 0.5, "b": row % 7, "n": row, "word": f"w{row % 3}", "odd": "" if row % 3 else 1,
     "label": "xy"[row % 2] if row < 2000 or row % 9 else ""} for row in range(3000)
]  # fmt: skip


def write(root, kind, rows, name="a"):
    path = root / f"{name}.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.Table.from_pylist([{**row, "odd": str(row["odd"])} for row in rows])
        parquet.write_table(table, path)
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_what_is_in_a_file_is_what_is_in_memory(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    settings = {"path": write(tmp_path, kind, ROWS), "test_path": write(tmp_path, kind, ROWS[:9], "t")}
    for more in ({}, {"features": ["b", "a"]}, {"values": ["a", "n"], "features": ["b"]}):
        memory, lazy = (OFFERS[kind].make({**settings, **more, "lazy": one}) for one in (False, True))
        assert isinstance(lazy.x, Unread) and isinstance(memory.x, torch.Tensor)
        assert torch.equal(lazy.x[:], memory.x) and lazy.fingerprint == memory.fingerprint
        assert torch.equal(lazy.keys, memory.keys) and torch.equal(lazy.y, memory.y)
        for name in ("features", "left_out", "labels", "notes", "reads", "classes"):
            assert getattr(lazy, name) == getattr(memory, name), name
        assert {name: list(own) for name, own in lazy.columns.items()} == memory.columns
        assert {name: rows.tolist() for name, rows in lazy.official.items()} == {
            name: rows.tolist() for name, rows in memory.official.items()
        }
        at = torch.tensor([3008, 5, 5, 2])
        assert torch.equal(lazy.x[at], memory.x[at]) and torch.equal(lazy.x.select(at)[1:3], memory.x[[5, 5]])


def test_labels_of_arrow_are_cells_as_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"a": row % 5, "odd": "", "label": None if row % 7 == 6 else bool(row % 2)} for row in range(30)]
    settings = {"path": write(tmp_path, "parquet", rows)}
    memory, lazy = (OFFERS["parquet"].make({**settings, "lazy": one}) for one in (False, True))
    assert lazy.labels == memory.labels == ["false", "true"] and torch.equal(lazy.y, memory.y)
    assert (lazy.y < 0).sum() == 4 and lazy.notes == memory.notes


def test_columns_that_count_and_cells_that_are_no_numbers_are_told(tmp_path):
    rows = [{"n": row + 5, "a": row % 5, "label": row % 2} for row in range(2500)]
    found = [OFFERS["csv"].make({"path": write(tmp_path, "csv", rows), "lazy": one}).notes for one in (False, True)]
    assert found[0] == found[1] == ["column 'n' numbers the rows, and is a feature"]
    rows = [{**row, "n": row["n"] + 9 * (at >= AT_ONCE)} for at, row in enumerate(rows)]
    for lazy in (False, True):
        assert OFFERS["csv"].make({"path": write(tmp_path, "csv", rows, "c"), "lazy": lazy}).notes == [], (
            "it skips some"
        )
    rows = [{"n": row % 5, "a": row % 5, "label": row % 2} for row in range(2500)]
    rows[1700]["a"], rows[2100]["a"] = "", "x"
    said = []
    for lazy in (False, True):
        with pytest.raises(MeshError, match="line 1702: '' is not a finite number; 2 of the 2500") as error:
            OFFERS["csv"].make({"path": write(tmp_path, "csv", rows, "b"), "lazy": lazy})
        said.append(str(error.value))
    assert said[0] == said[1]


def test_what_goes_with_rows_in_memory_alone_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, "csv", ROWS)
    agents = {"s": {"model": {"mlp": {"hidden": [2]}}}}
    prepare = [{"columns": "numbers", "impute": "median"}, {"columns": "categories", "encode": "one_hot"}]
    mesh = {
        "name": "m",
        "data": {"dataset": {"csv": {"path": path, "lazy": True}}, "prepare": prepare},
        "agents": agents,
    }
    with pytest.raises(MeshError, match="`prepare` is fitted on rows in memory") as error:
        examine(make_plan(parse(mesh), registry()))
    assert error.value.where == "data.dataset.csv.lazy"
    table = OFFERS["csv"].make({"path": path, "lazy": True})
    with pytest.raises(MeshError, match="cannot be sent to a process"):
        pickle.dumps(table)
    monkeypatch.setattr("kdmesh.streams.host_memory.memory", lambda: 100_000)
    assert isinstance(OFFERS["csv"].make({"path": path}).x, Unread)
    assert OFFERS["csv"].make({"path": path}, cells=True).cells is not None  # of which `prepare` makes samples
    monkeypatch.setattr("kdmesh.streams.in_file.TemporaryFile", lambda **_: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(MeshError, match="cannot be written to") as error:
        InFile("f4").add([1.0])
    assert "TMPDIR" in error.value.instead


def test_files_of_numbers_are_closed():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, left = InFile("f4"), InFile("f4")
        found.add([1.0, 2.0])
        left.add([3.0])  # as where the next row is wrong
        made = found.tensor()
        del found, left
        gc.collect()
    assert made.tolist() == [1.0, 2.0] and not [one for one in caught if one.category is ResourceWarning]
