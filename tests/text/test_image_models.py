"""Models of transformers that classify images: seen as their processors see them, saved as transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.text import processor as processors
from kdmesh.text.settings import ProcessorSettings

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
VIT = {"model_type": "vit", "intermediate_size": 24, **SMALL}
DINO = {"model_type": "dinov2", **SMALL}
SEEN = {"size": [16, 16], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
LEVELS = 1.5
"""Of 255: how far an image that is resized may be from Pillow's, which rounds to whole levels twice."""


def pixels(channels: int = 3, size: int = 20) -> Tensor:
    """Whole levels of noise, as float32 of 0 to 1."""
    drawn = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (60, channels, size, size), generator=drawn).float() / 255


def mesh(settings: dict[str, Any], x: Tensor | None = None, names: bool = False, **agent: Any) -> kdmesh.Mesh:
    x = pixels() if x is None else x
    train = {"steps": 1, "batch_size": 20, "optimizer": {"sgd": {"lr": agent.pop("lr", 0.01)}}}
    one = kdmesh.Mesh(name="m", data=kdmesh.data(train=(x, torch.arange(len(x)) % 3)), train=train)
    if names:
        one.table.labels[:] = ["cat", "dog", "owl"]
    one.agent("a", {"hf": settings}, **agent)
    return one


def run(settings: dict[str, Any], *args: Any, **more: Any) -> Any:
    return mesh(settings, *args, **more).run(backend="inline", store="off")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of transformers of four classes, with its processor."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(5)
    made = tmp_path_factory.mktemp("vit") / "vit"
    settings = {name: value for name, value in VIT.items() if name != "model_type"}
    ViTForImageClassification(ViTConfig(num_labels=4, **settings)).save_pretrained(made)
    processors.write(ProcessorSettings.model_validate(SEEN), 3, made)
    return made


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("vit", {"size": {"height": 20, "width": 20}}),
        ("vit", {"size": {"height": 13, "width": 31}}),
        ("vit", {"size": {"height": 16, "width": 16}, "resample": 3, "image_mean": [0.1, 0.2, 0.3]}),
        ("vit", {"size": {"height": 37, "width": 37}, "resample": 1, "do_normalize": False}),
        ("bit", {"size": {"shortest_edge": 18}, "crop_size": {"height": 14, "width": 14}}),
        ("bit", {"size": {"shortest_edge": 20}, "crop_size": {"height": 15, "width": 16}}),
    ],
)
def test_images_are_seen_as_transformers_sees_them(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """To the bit where nothing is resized; else within 1.5 levels. Written again, it is read as the same."""
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    theirs = {"vit": ViTImageProcessorPil, "bit": BitImageProcessorPil}[kind](**settings)
    theirs.save_pretrained(tmp_path)
    ours = processors.read(str(tmp_path))
    x = pixels()[:6]
    files = [Image.fromarray(one) for one in (x * 255).round().byte().permute(0, 2, 3, 1).numpy()]
    expected = torch.from_numpy(np.stack(theirs(files)["pixel_values"]))
    found = processors.Processor(ours, (3, 20, 20))(x)
    levels = float(((found - expected) * torch.tensor(ours.std).view(-1, 1, 1)).abs().max() * 255)
    print(f"{kind} {settings}: {levels:.3f} levels")
    assert found.shape == expected.shape
    assert torch.equal(found, expected) if 20 in settings["size"].values() else levels <= LEVELS
    processors.write(ours, 3, tmp_path / "again")
    assert processors.read(str(tmp_path / "again")) == ours


@pytest.mark.parametrize("config", [VIT, DINO])
def test_it_is_transformers_own_and_read_by_it(config: dict[str, Any], tmp_path: Path) -> None:
    """The saved folder gives the agent's logits by transformers alone, from what the processor of it makes."""
    from transformers import AutoModelForImageClassification

    one = mesh({"config": config, "processor": SEEN})
    found = one.run(out=tmp_path, backend="inline", store="off")
    made, x = found.folder / "agents" / "a", pixels()[:5]
    net = AutoModelForImageClassification.from_pretrained(made).eval()
    seen = processors.Processor(processors.read(str(made)), (3, 20, 20))(x)
    with torch.no_grad():
        expected, own = net(pixel_values=seen).logits, found["a"].module(x)
    assert float((expected - own).abs().max()) <= 1e-6
    assert float((kdmesh.load(made).predict(x).scores - own).abs().max()) <= 1e-6
    assert "AutoImageProcessor" in (made / "README.md").read_text(encoding="utf-8")


def test_a_model_that_is_made_here_has_the_size_that_its_processor_gives() -> None:
    config = {name: value for name, value in VIT.items() if name != "image_size"}
    made = run({"config": config, "processor": {"size": [32, 32], "crop": [24, 24]}})["a"].module
    assert made.net.config.image_size == 24 and made(pixels()[:2]).shape == (2, 3)


def test_a_new_head_on_a_checkpoint_of_other_labels(folder: Path) -> None:
    from transformers import AutoModelForImageClassification

    with pytest.raises(MeshError, match=r"(?s)classifier.bias of shape \(4,\).*new_head: classifier"):
        run({"path": str(folder)})
    settings = {"path": str(folder), "new_head": "classifier"}
    one, two, other = (run(settings, lr=0.0, seed=seed)["a"].module for seed in (1, 1, 2))
    read = dict(AutoModelForImageClassification.from_pretrained(folder).named_parameters())
    for name, value in one.net.named_parameters():
        if name.startswith("classifier."):
            assert len(value) == 3 and torch.equal(value, two.net.get_parameter(name))
        else:
            assert torch.equal(value, read[name]), name
    assert not torch.equal(one.net.classifier.weight, other.net.classifier.weight)
    checked = mesh(settings)
    notes = examine(checked.plan(), {}, checked.table).notes
    assert "a: begins with its checkpoint, but for classifier, drawn anew by its seed" in notes
    taught = mesh(settings, update="frozen")
    taught.agent("b", {"mlp": {"hidden": [4]}})
    taught.connect("ensemble", teachers="a", student="b")
    with pytest.raises(MeshError, match="frozen, and its checkpoint has no classifier"):
        examine(taught.plan(), {}, taught.table)


@pytest.mark.parametrize(
    ("more", "where", "said"),
    [
        ({"new_head": "head"}, "model.hf.new_head", "no head 'head'.*new_head: classifier"),
        ({"tokenizer": {"characters": {}}}, "model.hf.tokenizer", "the data are images"),
        ({"processor": {"size": [32, 32]}, "new_head": "classifier"}, "model.hf.processor", "16x16, and sees.*32x32"),
        ({"processor": {"mean": [0.1, 0.2]}, "new_head": "classifier"}, "processor.mean", "2 values"),
        ({"processor": {"size": 16, "crop": [18, 18]}}, "processor.crop", "no larger"),
        ({"processor": "nowhere/at/all"}, "model.hf.processor", "does not exist"),
    ],
)
def test_settings_that_do_not_fit(more: dict[str, Any], where: str, said: str, folder: Path) -> None:
    with pytest.raises(MeshError, match=f"(?s){said}") as error:
        run({"path": str(folder), **more})
    assert error.value.where.endswith(where)


def test_data_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    settings = {"path": str(folder), "new_head": "classifier"}
    for x, said in (
        (pixels(1), r"(?s)`mean` has 3 values, and images have 1 channels.*mode: rgb"),
        (pixels() * 255, r"pixels of 0 to 1, and these are of 0 to 255"),
        (pixels().flatten(1), r"neither texts nor images"),
    ):
        with pytest.raises(MeshError, match=said):
            run(settings, x)
    with pytest.raises(MeshError, match=r"(?s)vit reads images of 3 channels, and these have 1.*mode: rgb"):
        run({**settings, "processor": {"size": [16, 16]}}, pixels(1))


def test_folders_that_are_no_whole_model(folder: Path, tmp_path: Path) -> None:
    import shutil

    settings = {"new_head": "classifier"}
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / processors.FILE).unlink()
    with pytest.raises(MeshError, match=rf"(?s)has no {processors.FILE}.*images as they are"):
        run({**settings, "path": str(bare)})
    odd = shutil.copytree(folder, tmp_path / "odd")
    told = json.loads((odd / processors.FILE).read_text(encoding="utf-8"))
    told = {**told, "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.8}
    (odd / processors.FILE).write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(MeshError, match=r"ConvNextImageProcessor of .* has steps of its own: _preprocess, resize"):
        run({**settings, "path": str(odd)})
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(MeshError, match=r"only pytorch_model.bin, which can run code"):
        run({**settings, "path": str(pickled)})
