"""Folders that cannot run are refused by `check`: their configuration, tokenizer and the headers of their weights."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import LABELS, architecture, bpe, model, save
from text_meshes import WORDS, bert, llama, modelled

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.text.source import quiet

Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    save(root / "m", labels=sorted(WORDS))
    save(root / "wide", labels=[*LABELS, "more"])
    wide = json.loads((root / "wide" / "config.json").read_text())
    for name in ("id2label", "label2id"):
        wide.pop(name)
    (root / "wide" / "config.json").write_text(json.dumps({**wide, "num_labels": 4}))
    base = model(config=architecture("bert")).net.bert
    base.config.num_labels = 2  # and no names of them
    base.save_pretrained(root / "base")
    bpe().save_pretrained(root / "base")
    return root


def mesh(texts: Path, teacher: dict[str, Any], **more: Any) -> kdmesh.Mesh:
    made = kdmesh.Mesh(data={"dataset": {"text": {"path": str(texts), "label": "label"}}}, train={"batch_size": 8})
    teacher = {"max_length": 48, **teacher}
    made.agent("t", {"hf": teacher}, **more)
    made.agent("s", bert(8))
    made.flow("t", "s", objective="kl")
    return made


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def holds(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(size: int) -> Change:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:size])

    return change


def index(content: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "one.safetensors")
        (folder / "model.safetensors.index.json").write_text(content)

    return change


def gone(name: str, to: str | None = None) -> Change:
    return lambda folder: (folder / name).rename(folder / to) if to else (folder / name).unlink()


DAMAGED: list[tuple[Change, str]] = [
    (config(num_hidden_layers="1"), r"'num_hidden_layers' expected int, got str \(value: '1'\)"),
    (config(num_hidden_layers=-1), "the model has -1 layers"),
    (config(num_hidden_layers=3), "the weights in .* are incomplete: bert.encoder.layer.2"),
    (config(tie_word_embeddings="yes"), "'tie_word_embeddings' expected bool, got str"),
    (config(vocab_size=None), "'vocab_size' expected int, got NoneType"),
    (config(vocab_size=301), r"bert.embeddings.word_embeddings.weight of shape \(300, 16\), where .* \(301, 16\)"),
    (config(hidden_size=17), "is not a multiple of the number of attention heads"),
    (config(num_attention_heads=0), "ZeroDivisionError"),
    (config(dtype="float99"), "float99"),
    (config(model_type="nobody"), "nobody"),
    (config(id2label="a"), "cannot be read"),
    (holds("config.json", "[]"), "cannot be read"),
    (holds("config.json", "null"), "cannot be read"),
    (holds("config.json", b'{"a": "\xe9"}'), "not a valid JSON"),
    (gone("config.json"), "has no config.json"),
    (holds("tokenizer.json", "null"), "cannot be read"),
    (holds("tokenizer.json", "{}"), "cannot be read"),
    (holds("tokenizer_config.json", "[1]"), "cannot be read"),
    (gone("tokenizer.json"), "cannot be read"),
    (gone("model.safetensors"), "has no model.safetensors: none"),
    (gone("model.safetensors", "pytorch_model.bin"), "only pytorch_model.bin, which can run code"),
    (cut(-40), r"model.safetensors is damaged: .*not fully covered"),
    (cut(50), "model.safetensors is damaged"),
    (cut(0), "model.safetensors is damaged"),
    (index('{"weight_map": {"a": 5}}'), "index.json is damaged"),
    (index("[]"), "index.json is damaged"),
    (index('{"weight_map": {"a": "two.safetensors"}}'), "two.safetensors is missing"),
    (index('{"weight_map": {"a": "../m/model.safetensors"}}'), "leads outside of this folder"),
    (holds("adapter_config.json", "{}"), "is an adapter of peft"),
]


def test_a_folder_that_cannot_run_is_refused_by_check_with_its_place(home: Path, texts: Path, tmp_path: Path) -> None:
    for number, (change, told) in enumerate(DAMAGED):
        folder = tmp_path / str(number)
        shutil.copytree(home / "m", folder)
        change(folder)
        with quiet(), pytest.raises(MeshError, match=told) as error:
            examine(mesh(texts, {"path": str(folder)}).plan())
        assert error.value.where.startswith("agents.t.model.hf."), (number, error.value.where)
        assert (error.value.instead and str(folder) in str(error.value)) or "layers" in told
    with pytest.raises(MeshError, match=r"classifier.* of shape \(4,\), where this model has \(3,\)"):
        examine(mesh(texts, {"path": str(home / "wide")}).plan())
    examine(mesh(texts, {"path": str(home / "m")}).plan())  # as it was, it fits


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("num_hidden_layers", "2", "expected int, got str"),
        ("layer_norm_eps", "x", "expected float, got str"),
        ("num_hidden_layers", 0, "the model has 0 layers"),
    ],
)
def test_changes_of_the_wrong_kind_are_refused(home: Path, texts: Path, name: str, value: Any, told: str) -> None:
    with pytest.raises(MeshError, match=told):
        examine(mesh(texts, {"path": str(home / "m"), "config": {name: value}}).plan())


@pytest.mark.parametrize(
    ("folder", "more", "told"),
    [
        ("base", {}, "checkpoint has no classifier.bias and 1 more: they would be random"),
        ("m", {"lora": {"rank": 2}}, "has no .*lora_A"),
        ("m", {"prefix": {"length": 2}}, "they would be random"),
    ],
)
def test_frozen_weights_that_nobody_trained_are_refused(
    home: Path, texts: Path, folder: str, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(MeshError, match=told) as error:
        examine(mesh(texts, {"path": str(home / folder), **more}, update="frozen").plan())
    assert error.value.where == "agents.t.update"
    examine(mesh(texts, {"path": str(home / folder), **more}).plan())  # they train


@pytest.mark.parametrize("update", ["frozen", "grad"])
def test_a_seed_of_weights_that_a_checkpoint_has_is_refused(home: Path, texts: Path, update: str) -> None:
    with pytest.raises(MeshError, match="checkpoint has every weight of t, so that its `seed` draws none") as error:
        examine(mesh(texts, {"path": str(home / "m")}, update=update, seed=3).plan())
    assert error.value.where == "agents.t.seed"
    for folder, more in (("base", {}), ("m", {"lora": {"rank": 2}})):  # a head, an adapter: these are drawn
        examine(mesh(texts, {"path": str(home / folder), **more}, seed=3).plan())


def test_frozen_nets_that_nobody_trained_are_noted(texts: Path, tmp_path: Path) -> None:
    made = modelled(texts)
    made["agents"]["t1"]["update"] = "frozen"
    assert [note for note in examine(kdmesh.Mesh(**made).plan()).notes if note.startswith("t1 is frozen and its")]
    for update, count in (("frozen", 1), ("grad", 0)):
        digits = kdmesh.Mesh(data="digits")
        digits.agent("t", {"mlp": {}}, update=update)
        digits.agent("s", {"mlp": {}})
        digits.flow("t", "s", objective="kl")
        assert len([note for note in examine(digits.plan()).notes if "it was never trained" in note]) == count
    digits = kdmesh.Mesh(data="digits")
    digits.agent("t", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), update="frozen")
    digits.agent("s", {"mlp": {}})
    digits.flow("t", "s", objective="kl")
    assert not [note for note in examine(digits.plan(), digits._modules).notes if "never trained" in note]


def test_a_hub_that_does_not_answer_is_told_at_once(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with socket.socket() as port:  # bound, and never listening
        port.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{port.getsockname()[1]}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        asked: list[float] = []
        monkeypatch.setattr(time, "sleep", asked.append)
        with pytest.raises(MeshError, match="nobody/nothing is not a folder here, and could not be fetched") as error:
            examine(mesh(texts, {"path": "nobody/nothing"}).plan())
    assert address in str(error.value) and error.value.where == "agents.t.model.hf.path"
    assert not asked  # it is not tried again and again


def test_a_half_precision_student_is_read_as_it_was_saved(texts: Path, tmp_path: Path) -> None:
    made = modelled(texts, train={"steps": 2, "batch_size": 8})
    made["agents"]["s"]["model"] = llama(8, dtype="bfloat16")
    result = kdmesh.Mesh(**made).run(backend="inline", out=tmp_path)
    folder = result.folder / "agents" / "s"  # type: ignore[operator]
    again = kdmesh.load(folder)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    encoded, _ = again.encoder.encode(again_texts())
    with torch.no_grad():
        assert torch.equal(again(["the red bird"]), result["s"].module(encoded.whole()).dense())
    assert again([]).shape == (0, 300) and kdmesh.load(folder.parent / "t1")([]).shape == (0, 300)
    told = (folder / "kdmesh.json").read_text() + (folder / "README.md").read_text()
    assert str(tmp_path) not in told and str(texts.parent) not in told


def again_texts() -> Any:
    from kdmesh.streams.texts import Sample, Texts

    return Texts([Sample("the red bird")])
