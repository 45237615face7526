"""Images of the `datasets` library, mapped from its folder, and of torchvision by name."""

from __future__ import annotations

import json
import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pillow
from pydantic import ValidationError

from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.errors import MeshError
from kdmesh.streams.unread import Unread
from kdmesh.tables.arrow import Arrow, Origin

OFFERS = {offer.name: offer for offer in DATASETS}
LABELS = {"train": [0, 1, 1, 0, 1], "test": [1, 0]}


def pixels(number, side=6):
    return np.random.default_rng(number).integers(0, 256, (side, 5, 3), dtype=np.uint8)


@pytest.fixture
def saved(tmp_path):
    kinds = Features({"photo": Image(), "kind": ClassLabel(names=["cat", "dog"]), "site": Value("string")})
    parts, number = {}, 0
    for part, labels in LABELS.items():
        rows = []
        for label in labels:
            rows.append({"photo": Pillow.fromarray(pixels(number)), "kind": label, "site": f"s{number % 2}"})
            number += 1
        parts[part] = Dataset.from_list(rows, features=kinds)
    DatasetDict(parts).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("more", [{}, {"lazy": True}, {"lazy": True, "workers": 1}])
def test_a_saved_folder_gives_images_classes_and_splits(saved, more):
    table = OFFERS["images"].make({"path": str(saved), "label": "kind", **more})
    assert isinstance(table.x, Unread) is bool(more)
    wanted = torch.from_numpy(np.stack([pixels(number).transpose(2, 0, 1) for number in range(7)])).float() / 255
    assert torch.equal(table.tensor, wanted) and table.y.tolist() == LABELS["train"] + LABELS["test"]
    assert table.labels == ["cat", "dog"] and table.columns["site"] == [f"s{number % 2}" for number in range(7)]
    assert {name: len(rows) for name, rows in table.official.items()} == {"train": 5, "test": 2}
    turned = OFFERS["images"].make({"path": str(saved), "label": "kind", "splits": {"train": "test"}, **more})
    assert turned.y.tolist() == LABELS["test"] and not turned.official


def test_images_of_a_saved_folder_without_a_label_are_a_pool(tmp_path):
    kinds = Features({"photo": Image(), "kind": ClassLabel(names=["cat", "dog"])})
    rows = [{"photo": Pillow.fromarray(pixels(number)), "kind": one} for number, one in enumerate([0, None, 1, None])]
    Dataset.from_list(rows, features=kinds).save_to_disk(tmp_path / "some")
    table = OFFERS["images"].make({"path": str(tmp_path / "some"), "label": "kind"})
    assert table.y.tolist() == [0, 1, -1, -1] and table.labels == ["cat", "dog"]
    assert {name: rows.tolist() for name, rows in table.official.items()} == {"train": [0, 1], "transfer": [2, 3]}
    wanted = torch.from_numpy(np.stack([pixels(number).transpose(2, 0, 1) for number in (0, 2, 1, 3)])).float() / 255
    assert torch.equal(table.tensor, wanted)


def test_what_is_wrong_with_a_saved_folder_is_named(saved, tmp_path):
    for settings, what in (
        ({"label": "none"}, "no column 'none'"),
        ({"label": "kind", "image": "site"}, "column 'site' has no images"),
        ({"label": "kind", "splits": {"train": "none"}}, "no split 'none'"),
        ({"label": "kind", "test_path": str(saved)}, "has splits of its own"),
    ):
        with pytest.raises(MeshError, match=what):
            OFFERS["images"].make({"path": str(saved), **settings})
    rows = [
        {"photo": {"bytes": b"x" * 90, "path": None}, "kind": 0},
    ]
    kinds = Features({"photo": Image(), "kind": Value("int64")})
    Dataset.from_list(rows, features=kinds).save_to_disk(tmp_path / "bad")
    with pytest.raises(MeshError, match=r"split train, row 0: .*no PNG, JPEG or WebP"):
        OFFERS["images"].make({"path": str(tmp_path / "bad"), "label": "kind"})


@pytest.mark.parametrize("more", [{}, {"lazy": True}])
def test_a_hub_id_is_read_with_its_configuration_and_revision(saved, more, monkeypatch):
    import datasets

    known, asked = datasets.load_from_disk(str(saved)), []

    def load_dataset(*names, **settings):
        asked.append((names, settings))
        return known

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = {"hub": "some/set", "name": "small", "revision": "v1", "label": "kind", **more}
    table = OFFERS["images"].make(hub)
    own = OFFERS["images"].make({"path": str(saved), "label": "kind"})
    assert asked == [(("some/set", "small"), {"revision": "v1"})] and table.source == "some/set"
    assert torch.equal(table.tensor, own.tensor) and torch.equal(table.y, own.y) and table.labels == own.labels
    again = pickle.loads(pickle.dumps(table.x))  # in another process, which asks the library itself
    if more:
        assert torch.equal(again[:], own.tensor) and len(asked) > 1 and set(map(str, asked)) == {str(asked[0])}
    origin = Arrow(Origin("some/set", ("small", None)), "here", "test", "photo")
    other = Arrow.of(json.loads(json.dumps(origin.told())))
    assert other.origin == origin.origin and other.read("1") == Arrow(Origin(str(saved)), "", "test", "photo").read("1")


def test_a_hub_that_is_not_reached_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    def offline(*names, **settings):
        raise ConnectionError("Couldn't reach 'some/set' on the Hub (OfflineModeIsEnabled)\nmore")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        MeshError, match=r"some/set: ConnectionError: Couldn't reach .* \(OfflineModeIsEnabled\)"
    ) as error:
        OFFERS["images"].make({"hub": "some/set", "label": "kind"})
    assert error.value.where == "data.dataset.images.hub" and "`path` for a local copy" in error.value.instead


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs `path` or `hub`"),
        ({"path": "a", "hub": "b"}, "needs `path` or `hub`"),
        ({"path": "a", "revision": "v1"}, "`revision` goes with `hub`"),
        ({"hub": "a", "test_path": "b"}, "`test_path` goes with `path`"),
        ({"hub": "a", "root": "b"}, "`root` goes with `path`"),
    ],
)
def test_settings_of_the_hub_go_with_it(given, said):
    with pytest.raises(ValidationError, match=said):
        OFFERS["images"].config.model_validate(given)


class VisionDataset:
    """What torchvision calls so: a folder, items of an image and its class."""


def stand_in(**kinds):
    module = ModuleType("torchvision.datasets")
    module.VisionDataset = VisionDataset
    vars(module).update(kinds)
    return {"torchvision": ModuleType("torchvision"), "torchvision.datasets": module}


class OfTwo(VisionDataset):
    classes = ("cat", "dog")

    def __init__(self, root, train=True, transform=None, download=False):
        assert download is False
        self.labels = LABELS["train" if train else "test"]
        self.first = 0 if train else len(LABELS["train"])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, at):
        return Pillow.fromarray(pixels(self.first + at)), self.labels[at]


class OfSplits(OfTwo):
    def __init__(self, root, split="train", download=False):
        if split not in LABELS:
            raise ValueError(f"unknown split {split}")
        super().__init__(root, split == "train")


class Halved(OfSplits):
    def __init__(self, root, split="train"):
        if split == "test":
            raise RuntimeError("Dataset not found or corrupted")
        super().__init__(root, split)


class Odd(OfTwo):
    def __getitem__(self, at):
        return Pillow.fromarray(pixels(at, 6 + at)), self.labels[at]


class Absent(OfTwo):
    def __init__(self, root, train=True):
        raise RuntimeError("Dataset not found. You can use download=True to download it")


def test_a_data_set_of_torchvision_by_name(tmp_path, monkeypatch):
    for name, module in stand_in(OfTwo=OfTwo, OfSplits=OfSplits, Odd=Odd, Absent=Absent, Halved=Halved).items():
        monkeypatch.setitem(sys.modules, name, module)
    offer = OFFERS["torchvision"]
    wanted = torch.from_numpy(np.stack([pixels(number).transpose(2, 0, 1) for number in range(7)])).float() / 255
    for name in ("OfTwo", "OfSplits"):
        table = offer.make({"name": name, "folder": str(tmp_path)})
        assert torch.equal(table.x, wanted) and table.y.tolist() == LABELS["train"] + LABELS["test"]
        assert table.labels == ["cat", "dog"] and {n: len(rows) for n, rows in table.official.items()} == {
            "train": 5, "test": 2,
        }  # fmt: skip
    assert len(offer.make({"name": "OfSplits", "folder": str(tmp_path), "split": "test"})) == 2
    assert offer.make({"name": "Odd", "folder": str(tmp_path), "resize": 4, "mode": "grey"}).x.shape == (7, 1, 4, 4)
    with pytest.raises(ValueError, match="a height and a width from 1 to 16384"):
        offer.make({"name": "Odd", "folder": str(tmp_path), "resize": [0, 4]})
    for settings, what in (
        ({"name": "OfTow"}, "did you mean 'OfTwo'"),
        ({"name": "Odd"}, "item 1: shape"),
        ({"name": "Absent"}, "Dataset not found"),
        ({"name": "Halved"}, "Halved: .*Dataset not found or corrupted"),
        ({"name": "OfTwo", "split": "train"}, "torchvision.split: OfTwo has no `split`"),
        ({"name": "OfTwo", "folder": str(tmp_path / "none")}, "no folder"),
    ):
        with pytest.raises(MeshError, match=what):
            offer.make({"folder": str(tmp_path), **settings})


def test_without_torchvision_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(MeshError, match="this needs torchvision"):
        OFFERS["torchvision"].make({"name": "CIFAR10", "folder": str(tmp_path)})
