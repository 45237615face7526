"""Arrays that are mapped, not read: the bits of those in memory, however they are stored."""

from __future__ import annotations

import gzip
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from read_later import same_samples
from safetensors.torch import save_file

import kdmesh
from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.errors import MeshError
from kdmesh.streams import contents
from kdmesh.streams.private import own_part
from kdmesh.streams.remarks import leaks, remarks
from kdmesh.streams.stream import Stream
from kdmesh.streams.unread import Unread
from kdmesh.tables.mapped import Mapped

OFFERS = {offer.name: offer for offer in DATASETS}
DRAWN = np.random.default_rng(0)
X, Y = DRAWN.normal(size=(30, 2, 3)), np.arange(30) % 3
KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.uint8)
X[4] *= 1000  # what is not scaled is said


def folder(root, **found):
    root.mkdir(exist_ok=True)
    for name, values in found.items():
        np.save(root / f"{name}.npy", values)
    return str(root)


def idx(root, **parts):
    for part, pixels in parts.items():
        header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *pixels.shape)
        (root / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = bytes(range(5)) * (len(pixels) // 5)
        (root / f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", len(pixels)) + labels)
    return str(root)


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """By name, a reader and its settings."""
    root = tmp_path_factory.mktemp("arrays")
    tests = {"x_test": X[:7] + 1, "y_test": Y[:7], "x_validation": X[:5] + 2, "y_validation": Y[:5]}
    found = {
        "npy": ("arrays", {"path": folder(root / "npy", x=X.astype("f4"), y=Y, **tests)}),
        "big-endian": ("arrays", {"path": folder(root / "big", x=X.astype(">f8"), y=X[:, 0].astype("f4"))}),
        "whole": ("arrays", {"path": folder(root / "whole", x=(X * 9).astype("i2")), "classes": 3}),
        "unsigned": ("arrays", {"path": folder(root / "unsigned", x=(abs(X) * 9).astype("u2"), y=Y)}),
        "long": ("arrays", {"path": folder(root / "long", x=(X * 1e9).astype("i8"), y=Y)}),
        "bool": ("arrays", {"path": folder(root / "bool", x=X > 0, y=Y)}),
    }
    for kind in KINDS:
        path = root / f"{kind}.safetensors"
        save_file({"x": torch.from_numpy(abs(X)).to(kind), "y": torch.from_numpy(Y)}, path, {"about": "it"})
        found[str(kind)] = "arrays", {"path": str(path)}
    pixels = DRAWN.integers(0, 256, (20, 4, 5), dtype=np.uint8)
    (root / "idx").mkdir()
    found["idx"] = "idx", {"folder": idx(root / "idx", train=pixels, t10k=pixels[::-1][:10])}
    return found


NAMES = ["npy", "big-endian", "whole", "unsigned", "long", "bool", *map(str, KINDS), "idx"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_mapped_is_what_is_in_memory(forms, name):
    reader, settings = forms[name]
    memory, lazy = (OFFERS[reader].make({**settings, "lazy": one}) for one in (False, True))
    at = torch.tensor([len(memory) - 1, 0, 7, 7])
    same_samples(lazy, memory, at)
    assert len(pickle.dumps(lazy.x)) < 5000
    assert lazy.official.keys() == memory.official.keys() and lazy.divided_by == memory.divided_by
    assert (lazy.y is None and memory.y is None) or torch.equal(lazy.y, memory.y)
    x = lazy.x[at]
    x.zero_()  # a batch is the reader's own
    assert torch.equal(lazy.x[at], memory.x[at])
    streams = {name: Stream(name, rows, True) for name, rows in {"train": torch.arange(15), **memory.official}.items()}
    told, known = (  # but for the advice: what is not in memory cannot be prepared
        [one.replace("prepare: [{columns: pixels, scale: standard}]", "scale them beforehand") for one in found]
        for found in (remarks(lazy, streams), remarks(memory, streams))
    )
    assert told == known and leaks(lazy, streams) == leaks(memory, streams)


def test_samples_of_others_are_not_read(forms):
    table = OFFERS["arrays"].make({**forms["npy"][1], "lazy": True})
    one, two = torch.arange(20), torch.arange(20, 30)
    streams = {"own": Stream("own", torch.arange(30), True, private=True, shards={"a": one, "b": two})}
    own = own_part(table, streams, ["a"])
    assert torch.isfinite(own.x[one]).all() and own.x[two].isnan().all()


def test_a_run_has_the_same_bits_and_the_store_finds_its_samples_again(forms, tmp_path):
    found, said = [], []
    for lazy in (False, True):
        mesh = kdmesh.Mesh(
            name="m",
            data={"dataset": {"arrays": {**forms["npy"][1], "lazy": lazy}}},
            agents={
                "t": {"model": {"mlp": {"hidden": [8]}}},
                "s": {"model": {"mlp": {"hidden": [4]}}, "view": {"augment": ["noise"]}},
            },
            connect=[{"ensemble": {"teachers": ["t"], "student": "s"}}],
            train={"epochs": 3, "batch_size": 8},
        )
        result = mesh.run(backend="inline", store=tmp_path)
        found.append({name: (one.weights_sha256, one.metrics) for name, one in result.agents.items()})
        said.append(result.summary["store"]["agents"]["t"]["found"])
    assert found[0] == found[1] and said[0] == 0 and said[1] > 0


def test_samples_of_a_stream_alone_are_read(forms, monkeypatch):
    read, most = Mapped.read, []
    monkeypatch.setattr(Mapped, "read", lambda self, rows: most.append(len(rows)) or read(self, rows))
    found = []
    for lazy in (False, True):
        data = {"dataset": {"arrays": {**forms["npy"][1], "lazy": lazy}}}
        mesh = kdmesh.Mesh(name="m", data=data, agents={"s": {"model": {"mlp": {"hidden": [4]}}}})
        x, y, _ = mesh.samples("test")
        found.append((x.tolist(), y.tolist()))
    assert found[0] == found[1] and len(found[0][0]) == 7 and max(most) == 7


def test_what_is_seen_is_selected_by_its_own_ids(forms):
    table = OFFERS["arrays"].make({**forms["npy"][1], "lazy": True})
    ids = torch.arange(len(table)) * 10
    seen = table.x.through(lambda x, own: x + own.view(-1, 1, 1), ids)
    at = torch.tensor([9, 3])
    assert torch.equal(seen.select(at)[:], seen[at]) and torch.equal(seen[at], table.x[at] + ids[at].view(-1, 1, 1))


def test_lists_to_rank_are_mapped_too(tmp_path):
    x = DRAWN.normal(size=(24, 4, 3)).astype("f4")
    y = (DRAWN.random((24, 3)) > 0.5).astype("f4")
    y[:, 0] = 1
    settings = {"path": folder(tmp_path / "lists", x=x, y=y)}
    keys = [
        replace(OFFERS["arrays"].make({**settings, "lazy": lazy}), lists=True).keys.tolist() for lazy in (False, True)
    ]
    assert keys[0] == keys[1] == contents.keys(torch.from_numpy(x[:, 0])).tolist(), "a list is known by its query"
    found = []
    for lazy in (False, True):
        data = {"dataset": {"arrays": {**settings, "lazy": lazy}}}
        mesh = kdmesh.Mesh(
            name="m", task="ranking", data=data, agents={"s": {"model": {"mlp": {"hidden": [4]}}}},
            train={"epochs": 2, "batch_size": 4},
        )  # fmt: skip
        result = mesh.run(backend="inline", store="off")
        found.append((result["s"].weights_sha256, result["s"].metrics))
    assert found[0] == found[1]


def test_by_default_what_is_large_is_mapped(forms, monkeypatch):
    for name in ("npy", "idx"):
        reader, settings = forms[name]
        assert isinstance(OFFERS[reader].make(settings).x, torch.Tensor)
    monkeypatch.setattr("kdmesh.streams.host_memory.memory", lambda: 4000)
    for name in ("npy", "torch.float32", "idx"):
        reader, settings = forms[name]
        assert isinstance(OFFERS[reader].make(settings).x, Unread), name
    monkeypatch.setattr("kdmesh.tables.files.memory", lambda: 2000)
    with pytest.raises(MeshError, match="data are read into memory") as error:
        OFFERS["arrays"].make({**forms["npy"][1], "lazy": False})
    assert error.value.instead == "lazy: true"


def test_what_cannot_be_mapped_is_refused(forms, tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    (tmp_path / "packed").mkdir()
    for file in Path(forms["idx"][1]["folder"]).iterdir():
        (tmp_path / "packed" / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    (tmp_path / "cut.npy").write_bytes((Path(forms["npy"][1]["path"]) / "x.npy").read_bytes()[:-3])
    cut = folder(tmp_path / "cut", y=Y)
    (tmp_path / "cut.npy").rename(tmp_path / "cut" / "x.npy")
    (tmp_path / "empty").mkdir()
    for reader, settings, what in (
        ("arrays", {"path": str(tmp_path / "a.npz")}, "an archive, of which arrays are read whole"),
        ("idx", {"folder": str(tmp_path / "packed")}, "is packed, and is read whole"),
        ("arrays", {"path": cut}, r"x\.npy: "),
        ("arrays", {"path": str(tmp_path / "empty")}, "a folder without .npy files"),
        ("arrays", {"path": folder(tmp_path / "f", x=np.asfortranarray(X.reshape(30, 6)), y=Y)}, "Fortran's order"),
        ("arrays", {"path": folder(tmp_path / "o", x=X.astype(object), y=Y)}, r"x\.npy: .*objects"),
        ("arrays", {"path": folder(tmp_path / "c", x=X.astype(complex), y=Y)}, r"x\.npy: it is of type complex128"),
        ("arrays", {"path": folder(tmp_path / "one", x=X[:, 0, 0], y=Y)}, "features were expected"),
        ("arrays", {"path": folder(tmp_path / "none", x=X[:0], y=Y[:0])}, "x"),
        ("arrays", {"path": folder(tmp_path / "odd", x=X, y=Y, z=Y)}, "unknown array 'z'"),
        ("arrays", {"path": folder(tmp_path / "n", x=X, y=Y[:9])}, "9 labels for 30 rows"),
    ):
        with pytest.raises(MeshError, match=what) as error:
            OFFERS[reader].make({**settings, "lazy": True})
        assert error.value.where.startswith(f"data.dataset.{reader}")
    assert isinstance(OFFERS["idx"].make({"folder": str(tmp_path / "packed")}).x, torch.Tensor)


@pytest.mark.skipif(np.dtype("g").itemsize == 8, reason="its longest number is a double")
def test_numbers_of_more_than_64_bits_are_refused(tmp_path):
    settings = {"path": folder(tmp_path / "g", x=X.astype("g"), y=Y)}
    for lazy in (False, True):
        with pytest.raises(MeshError, match=r"x\.npy: it is of type float\d+"):
            OFFERS["arrays"].make({**settings, "lazy": lazy})


def test_a_value_that_is_not_finite_is_named_when_it_is_read(tmp_path):
    x = X.astype("f4").copy()
    x[11, 1] = np.inf
    table = OFFERS["arrays"].make({"path": folder(tmp_path / "odd", x=x, y=Y), "lazy": True})
    assert torch.isfinite(table.x[:11]).all()
    for at in (torch.tensor([3, 11]), slice(10, 14)):
        with pytest.raises(MeshError, match="x, row 11: a value is not finite in float32"):
            table.x[at]
    with pytest.raises(MeshError, match="row 11"):
        print(table.fingerprint)  # as check does
    for at in (torch.tensor([11, 3, 3]), torch.tensor([11])):  # still so, among rows that were looked at
        with pytest.raises(MeshError, match="row 11"):
            pickle.loads(pickle.dumps(table.x))[at]
    x[11, 1] = 1
    table = OFFERS["arrays"].make({"path": folder(tmp_path / "even", x=x, y=Y), "lazy": True})
    assert table.fingerprint and not table.x._unseen._left and torch.isfinite(table.x[:]).all()


RESIDENT = """
import sys
from pathlib import Path

import torch

from kdmesh.builtin.datasets.arrays import arrays


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


table = arrays(sys.argv[1], lazy=True)
table.x[:64], table.x[torch.arange(64)]
before = anonymous()
table.fingerprint, table.keys
for batch in torch.randperm(len(table), generator=torch.Generator().manual_seed(0)).split(64):
    assert table.x[batch].isfinite().all()
print(table.x.nbytes / 1e6, anonymous() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="its figures are Linux's")
def test_memory_does_not_grow_with_the_arrays(tmp_path):
    rows = 11_000
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "f4", (rows, 3, 48, 48)).flush()  # of holes alone
    np.save(tmp_path / "y.npy", np.arange(rows) % 2)
    run = [sys.executable, "-c", RESIDENT, str(tmp_path)]
    size, grown = map(float, subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
    assert size > 300 and grown < 120, (size, grown)  # MB
