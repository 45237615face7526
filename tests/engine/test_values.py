"""What a saved agent knows of its input, models at chance, and batches larger than what there is."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.report.tables import final_table

MODEL = {"mlp": {"hidden": [8]}}


def idx(folder, images, labels):
    for stem, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / f"train-{stem}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Raw pixels, and a result whose student learned from them as IDX files."""
    folder = tmp_path_factory.mktemp("idx")
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.integers(0, 256, (60, 4, 4)) // 2 + labels[:, None, None] * 60
    idx(folder, images, labels)
    mesh = kdmesh.Mesh(data={"dataset": {"idx": {"folder": str(folder)}}}, train={"steps": 5, "batch_size": 16})
    mesh.agent("s", MODEL)
    mesh.flow("labels", "s", objective="ce")
    return torch.from_numpy(images).unsqueeze(1), mesh.run(backend="inline", out=folder / "runs")


def test_a_saved_student_takes_pixels_as_the_file_has_them(saved):
    raw, result = saved
    folder = result.folder / "agents" / "s"
    loaded, read = kdmesh.load(folder), raw.float() / 255
    assert json.loads((folder / "config.json").read_text())["scale"] == {"divided_by": 255.0}
    with torch.no_grad():
        right = result["s"].module(read)
        for given in (read, raw, raw.float(), raw.to(torch.uint8), raw.to(torch.int32)):
            assert torch.equal(loaded(given), right)
        noisy = read + torch.randn(read.shape)
        assert torch.equal(loaded(noisy), result["s"].module(noisy))


def test_in_a_mesh_a_loaded_module_sees_samples_as_they_are_read(saved):
    raw, result = saved
    loaded = torch.nn.Sequential(kdmesh.load(result.folder / "agents" / "s"))
    mesh = kdmesh.Mesh(data=kdmesh.data((raw.float(), torch.arange(60) % 3)), train={"steps": 1, "batch_size": 8})
    mesh.agent("t", loaded, update="frozen")
    mesh.agent("s", MODEL)
    mesh.connect("ensemble", teachers="t", student="s", objective="kl")
    kept = mesh.run(backend="inline")["t"].module
    with torch.no_grad():
        assert not torch.equal(kept(raw.float()), loaded(raw.float()))
        assert torch.equal(loaded(raw.float()), result["s"].module(raw.float() / 255))  # the given one is as it was


def test_a_saved_student_knows_its_columns(tmp_path):
    rows = [f"{i % 5},Rome,{i % 3},{'yes' if i % 2 else 'no'}" for i in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["age,city,size,label", *rows]) + "\n")
    mesh = kdmesh.Mesh(
        data={"dataset": {"csv": {"path": str(tmp_path / "a.csv")}}}, train={"steps": 1, "batch_size": 8}
    )
    mesh.agent("s", MODEL)
    mesh.flow("labels", "s", objective="ce")
    folder = mesh.run(backend="inline", out=tmp_path).folder
    config = json.loads((folder / "agents" / "s" / "config.json").read_text())
    assert (config["columns"], config["labels"]) == (["age", "size"], ["no", "yes"])
    assert config["left_out"] == {"city": "'Rome' is not a number"}
    assert str(tmp_path) not in json.dumps(config["learned_from"])


def test_a_model_at_chance_is_named_when_the_run_is_over(tmp_path):
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    data = kdmesh.data((x, (x[:, 0] > 0).long()))
    mesh = kdmesh.Mesh(data=data, train={"steps": 40, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.5}}})
    mesh.agent("good", MODEL)
    mesh.agent("idle", MODEL, train={"optimizer": {"sgd": {"lr": 1e-12}}}, seed=3)
    mesh.flow("labels", ["good", "idle"], objective="ce")
    result = mesh.run(backend="inline", out=tmp_path)
    assert result["idle"].metrics["test"]["accuracy"] <= 0.5 < result["good"].metrics["test"]["accuracy"]
    inference, note = result.summary["notes"]
    assert inference == "idle learned nothing: none of its 40 updates changed a weight"
    assert note.startswith("at chance") and "idle" in note and "good" not in note
    assert note.endswith("are the features scaled, and is the learning rate right?")
    assert json.loads((result.folder / "summary.json").read_text())["notes"] == [inference, note]
    assert final_table(result.summary).caption.endswith(f"note: {note}")


@pytest.mark.parametrize("placement", ["together", {"one": ["t"], "two": ["s"]}])
def test_a_batch_above_a_small_stream_holds_what_there_is(placement):
    weights = []
    for size in (64, 12):
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        mesh = kdmesh.Mesh(
            data=kdmesh.data((x, (x[:, 0] > 0).long())),
            streams={"few": {"size": 12}},
            train={"epochs": 3, "batch_size": size},
            placement=placement,
        )
        # Rows of a linear layer may depend on how many there are: what teaches is forwarded alike in both.
        mesh.agent("t", MODEL, train={"epochs": 2, "forward_size": 16})
        mesh.agent("s", MODEL)
        mesh.flow("labels", "t", objective="ce", stream="few")
        mesh.flow("labels", "s", objective="ce", stream="few")
        mesh.flow("t", "s", objective="kl", stream="few", refresh="once")
        said = [note for note in examine(mesh.plan(), {}, mesh.table).notes if "batches of" in note]
        assert said == (["t, s: batches of 'few' hold all 12 samples, where batch_size is 64"] if size == 64 else [])
        weights.append({name: agent.weights_sha256 for name, agent in mesh.run(backend="inline").agents.items()})
    assert weights[0] == weights[1]


def test_a_batch_above_the_data_with_drop_last_makes_none():
    x = torch.randn(60, 4)
    mesh = kdmesh.Mesh(data=kdmesh.data((x, (x[:, 0] > 0).long())), train={"batch_size": 64, "drop_last": True})
    mesh.agent("s", MODEL)
    mesh.flow("labels", "s", objective="ce")
    with pytest.raises(MeshError, match="make no full batch of 64"):
        mesh.run(backend="inline")


@pytest.mark.parametrize(("shape", "what"), [((4,), "features"), ((1, 2, 2), "values of the samples")])
def test_chance_is_the_share_of_the_most_frequent_class_of_test(shape, what):
    """Nine of ten are of one class: to say that one always is right nine times out of ten, and nothing learned."""
    x = torch.randn(100, *shape, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(100) % 10 == 0).long()
    mesh = kdmesh.Mesh(data=kdmesh.data((x, y), test=(x[:40] + 1, y[:40])), train={"steps": 20, "batch_size": 20})
    mesh.agent("s", MODEL, train={"optimizer": {"sgd": {"lr": 0.1}}})
    mesh.flow("labels", "s", objective="ce")
    result = mesh.run(backend="inline")
    assert result["s"].metrics["test"]["accuracy"] == 0.9
    (note,) = result.summary["notes"]
    said = "at chance, no better on test than the most frequent class (0.9000): s; "
    assert note == f"{said}are the {what} scaled, and is the learning rate right?"
