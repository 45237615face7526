"""Agents' folders that were made to harm: each is refused with a message, before memory is taken or code is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

import kdmesh
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from pathlib import Path


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = kdmesh.Mesh(data={"dataset": "digits", "train": 64}, train={"steps": 1})
    made.agent("t", {"mlp": {"hidden": [4]}})
    made.flow("labels", "t", objective="ce")
    folder = made.run(backend="inline", out=tmp_path_factory.mktemp("saved")).folder
    assert folder is not None
    return folder / "agents" / "t"


def header(change: Any, lie: int | None = None) -> Any:
    """Write the weights again with another header."""

    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        found = json.loads(raw[8 : 8 + size])
        text = change(found, [name for name in found if name != "__metadata__"])
        text = text if isinstance(text, bytes) else json.dumps(found).encode()
        path.write_bytes(struct.pack("<Q", len(text) if lie is None else lie) + text + raw[8 + size :])

    return write


def config(**fields: Any) -> Any:
    def write(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return write


def text(name: str, content: str | bytes) -> Any:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def pipe(name: str) -> Any:
    def write(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return write


def large(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(3 << 30)


def refers(*files: Any) -> Any:
    return text("reference.json", json.dumps({"kdmesh": 1, "files": list(files)}))


CASES: dict[str, tuple[Any, str]] = {
    "a huge shape": (header(lambda h, k: h[k[0]].update(shape=[10**9, 10**9])), "cannot read weights"),
    "a negative shape": (header(lambda h, k: h[k[0]].update(shape=[-1])), "cannot read weights"),
    "parts that overlap": (header(lambda h, k: h[k[1]].update(h[k[0]])), "cannot read weights"),
    "parts beyond the end": (header(lambda h, k: h[k[0]].update(data_offsets=[0, 10**18])), "cannot read weights"),
    "a header of a length that lies": (header(lambda h, k: None, lie=2**63), "cannot read weights"),
    "a header of brackets": (header(lambda h, k: b"[" * 100_000), "cannot read weights"),
    "a pickle": (text("model.safetensors", pickle.dumps(Harm())), "cannot read weights"),
    "no weights": (text("model.safetensors", b""), "cannot read weights"),
    "weights from a pipe": (pipe("model.safetensors"), "there is no file"),
    "a layer of a billion": (config(model={"mlp": {"hidden": [10**9]}}), "does not fit this model"),
    "layers of a terabyte": (config(model={"mlp": {"hidden": [10**6, 10**5]}}), "does not fit this model"),
    "ten billion classes": (config(classes=10**10, labels=None), "does not fit this model"),
    "samples of ten billion": (config(input_shape=[10**10]), "does not fit this model"),
    "negative classes": (config(classes=-1, labels=None), "classes: config.json is damaged: found -1"),
    "a negative shape of samples": (config(input_shape=[-8]), "input_shape: config.json is damaged"),
    "a scale of nothing": (config(scale={"divided_by": 0}), "scale: config.json is damaged"),
    "a scale of NaN": (config(scale={"divided_by": float("nan")}), "scale: config.json is damaged"),
    "an exit nowhere": (config(exit="__class__"), "no layer '__class__'"),
    "code of the system": (config(model={"os:mkdir": {"path": "harmed"}}), "is no nn.Module class"),
    "settings of no model": (config(model={"mlp": 3}), "model: config.json is damaged"),
    "two models": (config(model={"mlp": {}, "cnn": {}}), "model: config.json is damaged"),
    "a config of brackets": (text("config.json", "[" * 100_000), "its config.json is damaged"),
    "a config from a pipe": (pipe("config.json"), "is a named pipe, not a file"),
    "a config of gigabytes": (large, "holds more than 64 MiB"),
    "a reference to passwords": (refers({"path": "/etc/passwd", "sha256": "0" * 64}), "has changed"),
    "a reference to zeros": (refers({"path": "/dev/zero", "sha256": "0" * 64}), "is not there"),
    "a reference of numbers": (refers(3), "damaged"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_folder_is_refused(name: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harm, said = CASES[name]
    folder = tmp_path / "agent"
    shutil.copytree(saved, folder)
    harm(folder)
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(MeshError) as error:
            kdmesh.load(folder)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert said in str(error.value)
    assert most < 200 << 20
    assert not (tmp_path / "harmed").exists()


def test_a_reference_from_a_pipe_is_passed_over(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    shutil.copytree(saved, folder)
    pipe("reference.json")(folder)
    assert not kdmesh.load(folder).training
