"""The figures of a run from every form of labelled file: tables of paths, arrays, folders of `datasets`."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_predict import BERT, FORMS, table, told, trained

from kdmesh.cli import main

datasets = pytest.importorskip("datasets")
MLP = {"mlp": {"hidden": [8]}}
PIXELS = torch.randint(0, 256, (64, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
Y = np.arange(64, dtype=np.uint8) % 3
CLASSES = "abc"


def measured(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    return json.loads(told(capsys, "evaluate", *words, "--json", "--quiet"))["figures"]


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err


def idx(folder: Path) -> Path:
    """The files of a set in the form of IDX."""
    folder.mkdir()
    for name, rows in (("train", slice(0, 48)), ("t10k", slice(48, 64))):
        count = len(Y[rows])
        pixels, labels = folder / f"{name}-images-idx3-ubyte", folder / f"{name}-labels-idx1-ubyte"
        pixels.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, count, 6, 6) + PIXELS[rows].tobytes())
        labels.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + Y[rows].tobytes())
    return folder / "t10k-images-idx3-ubyte"


def pictures(root: Path) -> None:
    """A folder of images, two tables that name them, and the same as `save_to_disk` writes them."""
    kept: dict[str, Any] = {"train": [], "test": []}
    for number, (image, label) in enumerate(zip(PIXELS, Y, strict=True)):
        part = "train" if number < 48 else "test"
        (root / "images" / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "images" / part / f"{number:02}.png")
        kept[part].append({"picture": f"{part}/{number:02}.png", "kind": CLASSES[label], "site": "pq"[number % 2]})
    names = {
        "picture": datasets.Image(),
        "kind": datasets.ClassLabel(names=list(CLASSES)),
        "site": datasets.Value("string"),
    }
    splits = datasets.DatasetDict()
    for part, rows in kept.items():
        lines = ["picture,kind,site", *(",".join(row.values()) for row in rows)]
        (root / f"{part}.csv").write_text("\n".join(lines), encoding="utf-8")
        found = [{**row, "picture": str(root / "images" / row["picture"])} for row in rows]
        splits[part] = datasets.Dataset.from_list(found, features=datasets.Features(names))
    splits.save_to_disk(str(root / "saved"))
    splits["test"].save_to_disk(str(root / "one"))


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def test_images_that_a_table_names_and_that_a_library_saved(tmp_path: Path, capsys: Any) -> None:
    pictures(tmp_path)
    files = {"path": str(tmp_path / "train.csv"), "test_path": str(tmp_path / "test.csv"), "image": "picture"}
    data = {"images": {**files, "root": str(tmp_path / "images"), "label": "kind"}}
    agent, figures = trained({"data": {"dataset": data}, "agents": {"s": {"model": MLP}}}, tmp_path / "out")
    root = ("--root", tmp_path / "images")
    by = measured(capsys, agent, tmp_path / "test.csv", *root, "--by", "site")
    assert by.pop("accuracy_by_site")["rows"] == {"p": 8, "q": 8} and by == figures
    assert measured(capsys, agent, tmp_path / "saved", "--split", "test") == figures
    assert measured(capsys, agent, tmp_path / "saved") == figures == measured(capsys, agent, tmp_path / "one")
    renamed = (tmp_path / "test.csv").read_text(encoding="utf-8").replace("picture,kind", "file,class", 1)
    (tmp_path / "renamed.csv").write_text(renamed, encoding="utf-8")
    more = ("--image", "file", "--label", "class")
    assert measured(capsys, agent, tmp_path / "renamed.csv", *root, *more) == figures
    np.save(tmp_path / "x.npy", PIXELS[48:, None])
    np.save(tmp_path / "y.npy", Y[48:].astype(np.int64))
    assert measured(capsys, agent, tmp_path / "x.npy", "--labels", tmp_path / "y.npy") == figures
    assert measured(capsys, agent, idx(tmp_path / "idx")) == figures
    answers = [told(capsys, "predict", agent, *words) for words in (
        (tmp_path / "one",), (tmp_path / "saved", "--split", "test"), (tmp_path / "x.npy",)
    )]  # fmt: skip
    assert answers[0] == answers[1] == answers[2] and answers[0].startswith("row,label,probability\n0,")
    assert "--split train or test" in refused(capsys, "predict", agent, tmp_path / "saved")
    for words, said in (
        ((tmp_path / "test.csv",), "no file"),
        ((tmp_path / "saved", "--split", "dev"), "its splits are train, test; no 'dev'"),
        ((tmp_path / "test.csv", "--split", "test"), "without it"),
        ((tmp_path / "images", *root), "images without columns"),
        ((tmp_path / "test.csv", *root, "--text", "site"), "--image COLUMN"),
    ):
        assert said in refused(capsys, "evaluate", agent, *words)


def test_who_learned_folders_is_measured_by_a_table(tmp_path: Path, capsys: Any) -> None:
    for number, (image, label) in enumerate(zip(PIXELS, Y, strict=True)):
        folder = tmp_path / "images" / ("train" if number < 48 else "test") / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    data = {"images": {"path": str(tmp_path / "images")}}
    agent, figures = trained({"data": {"dataset": data}, "agents": {"s": {"model": MLP}}}, tmp_path / "out")
    found = sorted((tmp_path / "images" / "test").glob("*/*.png"))
    assert measured(capsys, agent, tmp_path / "images" / "test") == figures
    lines = ["path,label", *(f"{one.relative_to(tmp_path)},{one.parent.name}" for one in found)]
    (tmp_path / "test.csv").write_text("\n".join(lines), encoding="utf-8")
    assert measured(capsys, agent, tmp_path / "test.csv") == figures
    (tmp_path / "other.csv").write_text("\n".join([lines[0].replace("label", "kind"), *lines[1:]]), encoding="utf-8")
    assert "--label COLUMN" in refused(capsys, "evaluate", agent, tmp_path / "other.csv")
    assert measured(capsys, agent, tmp_path / "other.csv", "--label", "kind") == figures


def test_a_split_of_images_in_folders(tmp_path: Path, capsys: Any) -> None:
    parts = {"train": range(40), "val": range(40, 48), "test": range(48, 64)}
    for part, numbers in parts.items():
        for number in numbers:
            folder = tmp_path / "images" / part / CLASSES[Y[number]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[number]).save(folder / f"{number:02}.png")
    images = tmp_path / "images"
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "images")
    mesh = {"data": {"dataset": {"images": {"path": packed}}}, "agents": {"s": {"model": MLP}}}
    agent, figures = trained(mesh, tmp_path / "out")
    assert measured(capsys, agent, packed) == figures == measured(capsys, agent, images)
    assert measured(capsys, agent, images / "test") == figures
    assert "s on 16 samples of packed.zip, split test" in told(capsys, "evaluate", agent, packed, "--quiet")
    for part, numbers in parts.items():
        found = json.loads(told(capsys, "evaluate", agent, packed, "--split", part, "--json", "--quiet"))
        assert found["samples"] == len(numbers)
        assert found["figures"] == measured(capsys, agent, images / part)
        rows = told(capsys, "predict", agent, packed, "--split", part).splitlines()[1:]
        assert [row.split(",")[0].split("/")[-1] for row in rows] == [
            f"{number:02}.png" for number in _by_class(numbers)
        ]
    assert len(told(capsys, "predict", agent, packed).splitlines()) == 65, "all of them, where no split is asked for"
    for name in ("validation", "VAL"):
        assert measured(capsys, agent, packed, "--split", name) == measured(capsys, agent, images / "val")
    said = refused(capsys, "evaluate", agent, packed, "--split", "tst")
    assert "its splits are test, train, validation; no 'tst'" in said and "did you mean 'test'" in said
    shutil.rmtree(images / "test")
    said = refused(capsys, "evaluate", agent, images)
    assert "its splits are train, validation" in said and "--split train or validation" in said
    shutil.rmtree(images / "train")
    assert measured(capsys, agent, images) == measured(capsys, agent, packed, "--split", "val")
    (one,) = images.glob("val/*/40.png")
    assert "one image" in refused(capsys, "predict", agent, one, "--split", "test")


def _by_class(numbers: range) -> list[int]:
    """Images in the order of their paths."""
    return sorted(numbers, key=lambda number: (Y[number], number))


def test_of_a_folder_of_files_one_is_asked_for(tmp_path: Path, capsys: Any) -> None:
    lines = ["a,b,label", *(f"{number},{number % 7},{CLASSES[number % 3]}" for number in range(40))]
    (tmp_path / "data").mkdir()
    for name in ("train", "test"):
        (tmp_path / "data" / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    data = {"csv": {"path": str(tmp_path / "data" / "train.csv")}}
    agent, _ = trained({"data": {"dataset": data, "test": 0.2}, "agents": {"s": {"model": MLP}}}, tmp_path / "out")
    said = refused(capsys, "evaluate", agent, tmp_path / "data")
    assert "data is a folder" in said and "a file of it: test.csv, train.csv" in said


def test_arrays_with_labels_of_their_own(tmp_path: Path, capsys: Any) -> None:
    idx(tmp_path / "idx")
    data = {"idx": {"folder": str(tmp_path / "idx")}}
    agent, figures = trained({"data": {"dataset": data}, "agents": {"s": {"model": MLP}}}, tmp_path / "out")
    labels = tmp_path / "idx" / "t10k-labels-idx1-ubyte"
    np.savez(tmp_path / "a.npz", x=PIXELS[:48, None], y=Y[:48], x_test=PIXELS[48:, None], y_test=Y[48:])
    np.save(tmp_path / "x.npy", PIXELS[48:, None])
    for words in (
        (tmp_path / "idx" / "t10k-images-idx3-ubyte",),
        (tmp_path / "a.npz", "--split", "test"),
        (tmp_path / "a.npz",),
        (tmp_path / "x.npy", "--labels", labels),
    ):
        assert measured(capsys, agent, *words) == figures
    for words, said in (
        ((tmp_path / "a.npz", "--split", "validation"), "its splits are train, test; no 'validation'"),
        ((tmp_path / "a.npz", "--split", "test", "--labels", labels), "has labels of its own"),
        ((tmp_path / "x.npy",), "--labels FILE"),
        ((tmp_path / "x.npy", "--labels", tmp_path / "x.npy"), "labels of shape [16, 1, 6, 6]"),
        ((tmp_path / "x.npy", "--labels", tmp_path / "idx" / "train-labels-idx1-ubyte"), "48 labels for 16 rows"),
        ((tmp_path / "x.npy", "--labels", labels, "--by", "site"), "samples without columns"),
        ((tmp_path / "x.npy", "--labels", labels, "--label", "way"), "arrays without columns"),
        ((tmp_path / "x.npy", "--labels", tmp_path / "none.npy"), "none.npy"),
        ((tmp_path / "x.npy", "--root", tmp_path), "a file without columns"),
    ):
        assert said in refused(capsys, "evaluate", agent, *words)


def test_values_in_arrays(tmp_path: Path, capsys: Any) -> None:
    drawn = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 4, generator=drawn).numpy(), torch.randn(50, 2, generator=drawn).numpy()
    np.savez(tmp_path / "a.npz", x=x[:40], y=y[:40], x_test=x[40:], y_test=y[40:])
    mesh = {"task": "regression", "data": {"dataset": {"arrays": {"path": str(tmp_path / "a.npz")}}}}
    agent, figures = trained({**mesh, "agents": {"s": {"model": MLP}}}, tmp_path / "out")
    assert measured(capsys, agent, tmp_path / "a.npz", "--split", "test") == figures
    np.save(tmp_path / "x.npy", x[40:])
    np.save(tmp_path / "y.npy", y[40:, :1])
    said = refused(capsys, "evaluate", agent, tmp_path / "x.npy", "--labels", tmp_path / "y.npy")
    assert "[10, 2] of floating point" in said


def test_who_learned_numbers_is_measured_by_numbers(tmp_path: Path, capsys: Any) -> None:
    """Also of a folder that names its classes, as where the run was told how many there are."""
    rows = [{"text": f"{'no' if number % 2 else 'yes'} {number}", "label": number % 2} for number in range(30)]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["y", "n"])})
    made = {part: datasets.Dataset.from_list(own, features) for part, own in (("train", rows), ("test", rows[:9]))}
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "saved"))
    data = {"text": {"path": str(tmp_path / "saved"), "label": "label", "classes": 2}}
    agent, figures = trained({"data": {"dataset": data}, "agents": {"s": {"model": BERT}}}, tmp_path / "out")
    assert measured(capsys, agent, tmp_path / "saved", "--split", "test") == figures


@pytest.mark.parametrize("form", ["classes", "values", "texts"])
def test_tables_and_texts_that_a_library_saved(form: str, tmp_path: Path, capsys: Any) -> None:
    paths = {
        name: table(tmp_path / f"{name}.csv", rows, seed) for name, rows, seed in (("train", 90, 0), ("test", 41, 1))
    }
    more, data, model = FORMS[form]
    ((kind, settings),) = data.items()
    own = {"path": str(paths["train"]), "test_path": str(paths["test"]), **settings}
    mesh = {**more, "data": {"dataset": {kind: own}}, "agents": {"s": {"model": model}}}
    agent, figures = trained(mesh, tmp_path / "out")
    found = {name: datasets.Dataset.from_csv(str(path), cache_dir=str(tmp_path)) for name, path in paths.items()}
    datasets.DatasetDict(found).save_to_disk(str(tmp_path / "saved"))
    assert measured(capsys, agent, tmp_path / "saved", "--split", "test") == figures
    words = ("predict", agent, tmp_path / "saved", "--split", "test")
    rows = [line.split(",", 1)[1] for line in told(capsys, *words).splitlines()]
    assert rows == [line.split(",", 1)[1] for line in told(capsys, "predict", agent, paths["test"]).splitlines()]
