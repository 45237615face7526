from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kdmesh.builtin.datasets import digits
from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.errors import MeshError

OFFERS = {offer.name: offer for offer in DATASETS}


def read(name, **config):
    return OFFERS[name].make(config)


def refused(name, what, **config):
    with pytest.raises(MeshError, match=what) as error:
        read(name, **config)
    assert error.value.where.startswith(f"data.dataset.{name}.")


def test_digits():
    table = read("digits")
    assert table.x.shape == (1797, 1, 8, 8)
    assert (table.x.min().item(), table.x.max().item()) == (0.0, 1.0)
    assert torch.equal(table.x * 16, (table.x * 16).round())
    assert torch.bincount(table.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert not table.official


def test_digits_are_those_of_scikit_learn_whether_its_file_is_found_or_not(monkeypatch):
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    for file in (digits.FILE, "datasets/elsewhere"):
        monkeypatch.setattr(digits, "FILE", file)
        table = read("digits")
        assert torch.equal(table.x.flatten(1) * 16, torch.from_numpy(pixels).float()), file
        assert torch.equal(table.y, torch.from_numpy(target)) and table.y.dtype == torch.int64, file


# IDX


def idx_bytes(array, kind=8):
    array = np.asarray(array, dtype=np.uint8)
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, part="train", images=None, labels=None, pack=False):
    images = np.arange(4 * 3 * 2).reshape(4, 3, 2) * 10 if images is None else images
    for stem, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels or [0, 1, 2, 1])):
        data = idx_bytes(array)
        (folder / (stem + ".gz" * pack)).write_bytes(gzip.compress(data) if pack else data)


@pytest.mark.parametrize("pack", [False, True])
def test_idx_files_become_images_and_an_official_test(tmp_path, pack):
    write_idx(tmp_path, pack=pack)
    write_idx(tmp_path, "t10k", images=np.full((4, 3, 2), 255), pack=pack)
    table = read("idx", folder=str(tmp_path))
    assert table.x.shape == (8, 1, 3, 2)
    assert torch.equal(table.x[:4].flatten(), torch.arange(24.0) * 10 / 255)
    assert table.x[4:].eq(1).all()
    assert table.y.tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert table.official["test"].tolist() == [4, 5, 6, 7]
    assert table.classes == 3


def test_idx_without_test_files_has_no_official_split(tmp_path):
    write_idx(tmp_path)
    table = read("idx", folder=str(tmp_path), classes=10)
    assert (len(table), table.classes, table.official) == (4, 10, {})


def test_broken_idx_files_are_refused(tmp_path):
    folder = str(tmp_path)
    refused("idx", "no folder", folder=folder + "/nowhere")
    refused("idx", "no file .*train-images", folder=folder)
    write_idx(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte"
    good = images.read_bytes()
    for data, what in (
        (good[:-1], "23 values where its header says 4 x 3 x 2"),
        (good + b"\0", "25 values"),
        (good[:10], "truncated in its header"),
        (b"\0\0\x0d\x03" + good[4:], "starts with 00 00 0d 03 where 00 00 08 03"),
        (b"PK", "starts with 50 4b"),
        (idx_bytes(np.zeros((0, 3, 2))), "not empty"),
        (idx_bytes(np.zeros((3, 3, 2))), "4 labels for 3 rows"),
        (b"", "is empty"),
    ):
        images.write_bytes(data)
        refused("idx", what, folder=folder)
    images.unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(good)[:-9])
    refused("idx", "damaged gzip", folder=folder)


def test_idx_labels_and_sizes_must_agree(tmp_path):
    write_idx(tmp_path)
    refused("idx", "row 2: label 2 is beyond the 2 classes", folder=str(tmp_path), classes=2)
    write_idx(tmp_path, "t10k", labels=[0, 1, 7, 1])
    refused("idx", "t10k-labels.*row 2: label 7 is beyond the 3 classes", folder=str(tmp_path))
    write_idx(tmp_path, "t10k", images=np.zeros((4, 2, 2)))
    refused("idx", "images of", folder=str(tmp_path))
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    refused("idx", "no file .*t10k-images", folder=str(tmp_path))


# arrays

X = np.arange(12, dtype=np.float64).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


def test_arrays_of_npz_and_safetensors_are_the_same(tmp_path):
    found = {"x": X, "y": Y, "x_test": X[:2] + 1, "y_test": Y[:2], "x_validation": X[:1], "y_validation": Y[:1]}
    np.savez(tmp_path / "a.npz", **{**found, "x": X.astype(">f8")})  # big-endian, as some tools write
    save_file({key: torch.from_numpy(np.ascontiguousarray(a)) for key, a in found.items()}, tmp_path / "a.safetensors")
    for name in ("a.npz", "a.safetensors"):
        table = read("arrays", path=str(tmp_path / name))
        assert torch.equal(table.x, torch.from_numpy(np.concatenate([X, X[:1], X[:2] + 1])).float())
        assert table.y.tolist() == [0, 1, 2, 0, 1, 2, 0, 0, 1]
        assert {k: v.tolist() for k, v in table.official.items()} == {
            "train": [0, 1, 2, 3, 4, 5],
            "validation": [6],
            "test": [7, 8],
        }


def test_arrays_without_labels_need_the_number_of_classes(tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    assert read("arrays", path=str(tmp_path / "a.npz"), classes=3).y is None
    refused("arrays", "no array 'y'", path=str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("found", "what"),
    [
        ({"y": Y}, "no array 'x'"),
        ({"x": X, "y": Y, "x_tset": X}, "unknown array 'x_tset'.*\n.*did you mean 'x_test'"),
        ({"x": X, "y": Y[:5]}, "5 labels for 6 rows"),
        ({"x": X, "y": Y - 1}, "row 0: label -1 is negative"),
        ({"x": X, "y": Y / 2}, "row 1: label 0.5 is no whole number"),
        ({"x": X, "y": np.eye(6)[None]}, "labels of shape"),
        ({"x": X, "y": np.eye(6).astype(int) * 2}, "label 0 is 2, which is neither 0 nor 1"),
        ({"x": X.astype(object), "y": Y}, "array 'x': Object arrays cannot be loaded"),
        ({"x": X.astype(str), "y": Y}, "array 'x'"),
        ({"x": np.where(X == 5, np.inf, X), "y": Y}, "x, row 2: a value is not finite"),
        ({"x": X * 1e300, "y": Y}, "not finite in float32"),
        ({"x": X[:0], "y": Y[:0]}, "features were expected"),
        ({"x": X, "y": Y, "x_test": X}, "labels for some parts only"),
        ({"x": X, "y": Y, "y_test": Y}, "'y_test' without 'x_test'"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "row 2: label 3 is beyond the 3 classes"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, found, what):
    np.savez(tmp_path / "a.npz", **found)
    refused("arrays", what, path=str(tmp_path / "a.npz"))


def test_damaged_array_files_are_refused(tmp_path):
    np.savez(tmp_path / "good.npz", x=X, y=Y)
    np.save(tmp_path / "one.npy", X)
    pieces = {"cut.npz": (tmp_path / "good.npz").read_bytes()[:100], "one.npz": (tmp_path / "one.npy").read_bytes()}
    for name, data in {
        **pieces,
        "empty.npz": b"",
        "text.npz": b"x,y",
        "cut.safetensors": b"\x09\0",
        "a.pt": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        refused("arrays", name, path=str(tmp_path / name))
    refused("arrays", "no file", path=str(tmp_path / "none.npz"))


# csv and jsonl

ROWS = [
    {"age": 1.5, "city": "Rome", "size": 3, "label": "cat"},
    {"age": 2.0, "city": "Oslo", "size": 4, "label": "ant"},
    {"age": -1e3, "city": "Rome", "size": 5, "label": "cat"},
]


def write(tmp_path, kind, rows, name="data", pack=False):
    if kind == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    else:
        text = "\r\n".join(",".join(map(str, row)) for row in [list(rows[0]), *(row.values() for row in rows)]) + "\r\n"
    path = tmp_path / f"{name}.{kind}{'.gz' * pack}"
    path.write_bytes(gzip.compress(text.encode()) if pack else text.encode())
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("pack", [False, True])
def test_rows_become_features_columns_and_class_names(tmp_path, kind, pack):
    path = write(tmp_path, kind, ROWS, pack=pack)
    table = read(kind, path=path)
    assert table.x.tolist() == [[1.5, 3], [2, 4], [-1000, 5]]
    assert table.y.tolist() == [1, 0, 1]
    assert table.labels == ["ant", "cat"]
    assert table.columns == {"city": ["Rome", "Oslo", "Rome"]}
    assert read(kind, path=path, features=["size"]).x.tolist() == [[3], [4], [5]]
    table = read(kind, path=path, label="size")
    assert table.y.tolist() == [3, 4, 5]
    assert (table.classes, table.labels) == (6, [])
    assert read(kind, path=path, classes=9).classes == 9


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_second_file_is_the_official_test(tmp_path, kind):
    path = write(tmp_path, kind, ROWS)
    table = read(kind, path=path, test_path=write(tmp_path, kind, ROWS[1:], "test"))
    assert table.official["test"].tolist() == [3, 4]
    assert table.y.tolist() == [1, 0, 1, 0, 1]
    assert table.columns["city"] == ["Rome", "Oslo", "Rome", "Oslo", "Rome"]
    unseen = write(tmp_path, kind, [{**ROWS[0], "label": "cats"}], "unseen")
    refused(kind, "'cats' is not a class of .*\n.*did you mean 'cat'", path=path, test_path=unseen)
    for empty in ("", " "):  # in train such rows are the pool: tests/builtin/test_dataset_tables.py
        gap = write(tmp_path, kind, [*ROWS, {**ROWS[0], "label": empty}], "gap")
        what = f"column 'label', line .: '{empty}' is not a class.*\n.*instead: a class .* every row"
        refused(kind, what, path=path, test_path=gap)
    beyond = write(tmp_path, kind, [{**ROWS[0], "size": 6}], "beyond")
    refused(kind, r"beyond\.\w+, column 'size', line .: label 6 is beyond", path=path, test_path=beyond, label="size")
    other = write(tmp_path, kind, [{"age": 1, "label": "cat"}], "other")
    refused(kind, "columns differ from .*: city, size", path=path, test_path=other)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("row", "config", "what"),
    [
        ({"age": "old"}, {}, "column 'age', line {}: 'old' is not a finite number"),
        ({"age": ""}, {}, "column 'age', line {}: '' is not a finite number"),
        ({"size": 1e39}, {}, "column 'size', line {}: .* is not a finite number"),
        ({"size": -4}, {"label": "size"}, "column 'size', line {}: label -4 is negative"),
        ({"size": 2.5}, {"label": "size"}, "column 'size', line {}: label 2.5 is no whole number"),
        ({"size": 9}, {"label": "size", "classes": 9}, "column 'size', line {}: label 9 is beyond the 9 classes"),
        ({"size": 10**7}, {"label": "size"}, "looks like an id"),
        ({}, {"classes": 1}, "2 class names for 1 classes"),
        ({}, {"features": ["city"]}, "column 'city', line .: 'Rome' is not a finite number"),
        ({}, {"features": ["ages"]}, "no column 'ages'\n.*did you mean 'age'"),
        ({}, {"features": ["label"]}, "features"),
        ({}, {"label": "species"}, "no column 'species'"),
    ],
)
def test_wrong_cells_are_refused_with_their_place(tmp_path, kind, row, config, what):
    path = write(tmp_path, kind, [*ROWS, {**ROWS[0], **row}])
    refused(kind, what.format(5 if kind == "csv" else 4), path=path, **config)


@pytest.mark.parametrize(
    ("kind", "data", "what"),
    [
        ("csv", b"", "is empty"),
        ("csv", b"a,label\n", "a header row and no data"),
        ("csv", b"a,a\n1,2\n", "header row"),
        ("csv", b"a,label\n1,x\n2\n", "line 3: 1 cells for 2 columns"),
        ("csv", b'a,label\n"1,x\n', "line 2: unexpected end of data"),
        ("csv", b"a,label\n\xff,x\n", "byte 8 is not UTF-8"),
        ("csv", b"a,label\nfoo,x\n", "features \\[\\]"),
        ("jsonl", b"\n \n", "only blank lines"),
        ("jsonl", b'{"a": 1, "label": 0}\n{"a": 1', "line 2: "),
        ("jsonl", b'{"a": 1, "label": 0}\n{"a": 1}', "line 2: keys differ from the first row: label"),
        ("jsonl", b"[1, 2]", "line 1: .*\n.*a JSON object"),
        ("jsonl", b'{"a": NaN, "label": 0}', "column 'a', line 1: nan is not a finite number"),
        ("jsonl", b'{"a": 1, "label": null}', "no row has a label in column 'label'"),
    ],
)
def test_malformed_files_are_refused(tmp_path, kind, data, what):
    path = tmp_path / "data"
    path.write_bytes(data)
    refused(kind, what, path=str(path))


def test_missing_files_and_damaged_gzip(tmp_path):
    refused("csv", "no file", path=str(tmp_path / "none.csv"))
    refused("csv", "data", path=str(tmp_path))
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"a,label\n" * 50)[:-12])
    refused("csv", "damaged gzip", path=str(path))


def test_csv_quotes_and_json_values_of_other_kinds(tmp_path):
    path = tmp_path / "quoted.csv"
    path.write_bytes(b'\xef\xbb\xbfa,note,label\n1,"x, ""y""\nz",0\n\n2,w,1\n')
    table = read("csv", path=str(path))
    assert table.columns == {"note": ['x, "y"\nz', "w"]}
    assert (table.x.tolist(), table.y.tolist()) == ([[1], [2]], [0, 1])
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"a": 1, "tags": ["x"], "label": true}\n{"a": 2, "tags": null, "label": false}\n')
    table = read("jsonl", path=str(path))
    assert table.columns == {"tags": ['["x"]', ""]}
    assert table.labels == ["false", "true"]
