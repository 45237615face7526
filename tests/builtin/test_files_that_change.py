"""Files that are read later and written to meanwhile: refused, where a part that is gone would end the process."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.errors import MeshError
from kdmesh.tables.archive import Packed

OFFERS = {offer.name: offer for offer in DATASETS}
MANY = 3000  # samples, so that half of a file is some pages less
PIXELS = np.arange(MANY * 64, dtype=np.uint8).reshape(MANY, 8, 8)
ROWS = [{"text": f"text number {row} of many", "label": "ab"[row % 2]} for row in range(MANY)]


def arrays(root: Path) -> dict[str, Any]:
    np.save(root / "x.npy", PIXELS[:, None].astype("f4"))
    np.save(root / "y.npy", np.arange(MANY) % 2)
    return {"path": str(root)}


def safetensors(root: Path) -> dict[str, Any]:
    save_file({"x": torch.from_numpy(PIXELS[:, None].copy()), "y": torch.arange(MANY) % 2}, root / "x.safetensors")
    return {"path": str(root / "x.safetensors")}


def idx(root: Path) -> dict[str, Any]:
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *PIXELS.shape)
    (root / "train-images-idx3-ubyte").write_bytes(header + PIXELS.tobytes())
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", MANY) + bytes(row % 2 for row in range(MANY))
    (root / "train-labels-idx1-ubyte").write_bytes(labels)
    return {"folder": str(root)}


def lines(root: Path) -> dict[str, Any]:
    (root / "x.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return {"path": str(root / "x.jsonl"), "label": "label"}


def comma(root: Path) -> dict[str, Any]:
    with (root / "x.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    return {"path": str(root / "x.csv"), "label": "label"}


def saved(root: Path) -> dict[str, Any]:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(root / "x")
    return {"path": str(root / "x"), "label": "label"}


def png(row: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[row]).save(file, "PNG")
    return file.getvalue()


def zipped(root: Path) -> dict[str, Any]:
    with zipfile.ZipFile(root / "x.zip", "w") as file:
        for row in range(200):
            file.writestr(f"{'ab'[row % 2]}/{row:03}.png", png(row))
    return {"path": str(root / "x.zip")}


def decoded_elsewhere(root: Path) -> dict[str, Any]:
    return {**zipped(root), "workers": 1, "bad": "drop"}


def pictures(root: Path) -> dict[str, Any]:
    import datasets

    rows = [{"image": {"bytes": png(row), "path": None}, "label": row % 2} for row in range(200)]
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_list(rows, features=kinds).save_to_disk(root / "x")
    return {"path": str(root / "x")}


FORMS = {
    "npy": ("arrays", arrays, "x.npy"),
    "safetensors": ("arrays", safetensors, "x.safetensors"),
    "idx": ("idx", idx, "train-images-idx3-ubyte"),
    "jsonl": ("text", lines, "x.jsonl"),
    "csv": ("text", comma, "x.csv"),
    "saved": ("text", saved, "x/data-00000-of-00001.arrow"),
    "zip": ("images", zipped, "x.zip"),
    "decoded elsewhere": ("images", decoded_elsewhere, "x.zip"),
    "pictures": ("images", pictures, "x/data-00000-of-00001.arrow"),
}


@pytest.fixture(params=FORMS)
def read_later(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """Samples of a set, and the file that they are read from."""
    offer, make, name = FORMS[request.param]
    return OFFERS[offer].make({**make(tmp_path), "lazy": True}).x, tmp_path / name


def some(x: Any) -> list[Any]:
    """Samples of both halves."""
    return [str(x[at]) for at in (1, len(x) - 2)] if not hasattr(x, "dim") else x[[1, len(x) - 2]].tolist()


@pytest.mark.parametrize("how", ["shorter", "other", "longer"])
def test_a_file_that_is_written_to_is_refused(read_later: tuple[Any, Path], how: str) -> None:
    x, path = read_later
    assert some(x) == some(x)
    size, written = path.stat().st_size, path.stat().st_mtime_ns
    with path.open("r+b") as file:
        if how == "shorter":
            file.truncate(size // 2)
        else:
            file.seek(size if how == "longer" else size // 2)
            file.write(b"none")
    os.utime(path, ns=(written, written + 1))  # whatever the clock's steps are
    with pytest.raises(MeshError, match=f"{path.name} changed while it was read") as error:
        some(x)
    assert "drop" not in str(error.value)


def test_a_process_that_decodes_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = OFFERS["images"].make({**decoded_elsewhere(tmp_path), "lazy": True}).x
    before = some(x)
    monkeypatch.setattr(Packed, "check", lambda self: None)  # of this process alone
    with (tmp_path / "x.zip").open("ab") as file:
        file.write(b"more")
    with pytest.raises(MeshError, match=r"x\.zip changed while it was read") as error:
        some(x)
    assert error.value.where == "data.dataset.images.path" and "drop" not in str(error.value)
    assert len(before) == 2


def test_one_that_is_replaced_is_read_as_it_was(read_later: tuple[Any, Path]) -> None:
    x, path = read_later
    before = some(x)
    path.with_name("new").write_bytes(path.read_bytes()[::-1])
    path.with_name("new").replace(path)
    assert some(x) == before
    path.unlink()
    assert some(x) == before


def test_another_process_knows_what_the_file_was(tmp_path: Path) -> None:
    x = OFFERS["arrays"].make({**arrays(tmp_path), "lazy": True}).x
    again = pickle.loads(pickle.dumps(x))
    os.truncate(tmp_path / "x.npy", 5000)
    with pytest.raises(MeshError, match="changed while it was read"):
        some(again)
