"""Image folders, archives and tables of paths: samples, labels, splits, and whatever is wrong with a file."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.errors import MeshError
from kdmesh.spec.data import DataSpec
from kdmesh.streams.splits import split
from kdmesh.tables import archive, images

OFFER = next(offer for offer in DATASETS if offer.name == "images")


def read(**config):
    return OFFER.make({name: str(value) if isinstance(value, Path) else value for name, value in config.items()})


def refused(what, instead="", **config):
    with pytest.raises(MeshError, match=what) as error:
        read(**config)
    assert error.value.where.startswith("data.dataset.images"), error.value.where
    assert instead in error.value.instead, error.value.instead
    return error.value


def pixels(seed, height=6, width=5, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path, array, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)


@pytest.fixture
def folder(tmp_path):
    """Two classes, official splits, and a pool without labels."""
    root = tmp_path / "photos"
    for number, part in enumerate(("train", "val", "test", "transfer")):
        for label in ("cat", "dog"):
            for one in range(3):
                write(root / part / label / f"{one}.png", pixels(100 * number + 10 * len(label) * one + one))
    return root


def zipped(folder, to, inside=""):
    with zipfile.ZipFile(to, "w") as file:
        for path in sorted(folder.rglob("*"), reverse=True):
            file.write(path, inside + path.relative_to(folder).as_posix())
    return to


def test_folders_are_classes_below_those_of_splits(folder):
    table = read(path=folder)
    assert table.x.shape == (24, 3, 6, 5) and table.x.dtype == torch.float32
    first = pixels(0).transpose(2, 0, 1)
    assert torch.equal(table.x[0], torch.from_numpy(first).float() / 255)
    assert table.labels == ["cat", "dog"] and table.classes == 2
    assert table.y.tolist() == [*([0] * 3 + [1] * 3) * 3, *[-1] * 6]
    assert {name: len(rows) for name, rows in table.official.items()} == {
        "train": 6, "validation": 6, "test": 6, "transfer": 6,
    }  # fmt: skip
    assert table.columns["path"][:4] == ["train/cat/0.png", "train/cat/1.png", "train/cat/2.png", "train/dog/0.png"]
    parts = split(table, DataSpec(dataset="images"))
    assert {name: len(rows) for name, rows in parts.items()} == {
        "test": 6, "validation": 6, "transfer": 6, "train": 6,
    }  # fmt: skip
    assert len(split(table, DataSpec(dataset="images", transfer=2))["transfer"]) == 2


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "TAR.GZ"])
def test_archives_give_the_samples_of_the_folder(folder, tmp_path, kind):
    to = tmp_path / f"photos.{kind}"
    if kind == "zip":
        zipped(folder, to, "some/folder/")
    else:
        with tarfile.open(to, "w" if kind == "tar" else "w:gz") as file:
            file.add(folder, "folder")
    packed, plain = read(path=to), read(path=folder)
    assert packed.fingerprint == plain.fingerprint and packed.labels == plain.labels
    assert {name: rows.tolist() for name, rows in packed.official.items()} == {
        name: rows.tolist() for name, rows in plain.official.items()
    }
    assert not list(tmp_path.glob("some")), "nothing is unpacked"


def test_a_folder_that_cannot_be_read_is_named_not_passed_over(folder, monkeypatch):
    def closed(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", closed)  # whoever runs the tests may read every folder
    refused("photos.*dog: Permission denied", "all can be read", path=folder)


def test_splits_by_paths_of_their_own(folder, tmp_path):
    paths = {"path": folder / "train", "test_path": zipped(folder / "test", tmp_path / "t.zip")}
    table = read(**paths, transfer_path=folder / "transfer")
    assert [len(rows) for rows in table.official.values()] == [6, 6, 6] and list(table.official)[-1] == "transfer"
    inside = read(path=folder / "train", test_path=zipped(folder / "test", tmp_path / "u.zip", "photos/of/2026/"))
    assert torch.equal(inside.y, read(**paths).y) and torch.equal(inside.x, read(**paths).x)
    one = read(path=folder / "train", test_path=zipped(folder / "test" / "dog", tmp_path / "d.zip", "a/dog/small/"))
    assert one.y[one.official["test"]].tolist() == [1, 1, 1], "a class of train ends what is looked through"
    write(folder / "test" / "wolf" / "0.png", pixels(0))
    refused("wolf.0.png: 'wolf' is no class of train", "cat", path=folder / "train", test_path=folder / "test")
    refused("has a folder of the split test", "one of the two", path=folder, test_path=folder / "test")


def test_folders_of_splits_stand_alone(folder):
    write(folder / "wolf" / "0.png", pixels(0))
    refused("wolf.0.png|wolf stands beside the folders of splits", "only folders of splits", path=folder)


def test_one_folder_more_is_looked_through_and_classes_may_be_called_train(tmp_path):
    for name in ("train/0.png", "bus/1.png", "car/deep/er/2.png"):
        write(tmp_path / "all" / "vehicles" / name, pixels(1))
    table = read(path=tmp_path / "all")
    assert table.labels == ["bus", "car", "train"] and table.y.tolist() == [0, 1, 2] and not table.official


def test_what_is_no_image_is_said_and_hidden_files_are_not_looked_at(folder):
    (folder / "train" / "cat" / "notes.txt").write_text("a cat")
    (folder / "train" / ".DS_Store").write_text("x")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "0.png").write_text("x")
    assert read(path=folder).notes == [f"{folder}: a file left out that are no images: first train/cat/notes.txt"]


def test_unlabelled_images_alone_need_a_number_of_classes(tmp_path):
    for number in range(4):
        write(tmp_path / "pool" / f"{number}.png", pixels(number))
    table = read(path=tmp_path / "pool", classes=3)
    assert table.y is None and table.classes == 3 and not table.official
    refused("no folders of classes", "transfer_path", path=tmp_path / "pool")
    write(tmp_path / "pool" / "cat" / "0.png", pixels(0))
    refused("in no class's folder, as are 4 of 5 images", "transfer/", path=tmp_path / "pool")


def test_a_table_of_paths_has_labels_of_every_kind(folder, tmp_path):
    rows = [f"{one},{label},{number},{number % 2},site{number % 2}" for number, (one, label) in enumerate(
        (f"train/{label}/{n}.png", label) for label in ("cat", "dog") for n in range(3)
    )]  # fmt: skip
    (folder / "labels.csv").write_text("path,label,value,holds,site\n" + "\n".join(rows) + "\n")
    table = read(path=folder / "labels.csv")
    assert table.labels == ["cat", "dog"] and table.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert table.columns["site"] == [f"site{n % 2}" for n in range(6)] and table.reads == {
        "image": "path", "label": "label",
    }  # fmt: skip
    assert table.fingerprint["x_sha256"] == read(path=folder / "train").fingerprint["x_sha256"]
    values = read(path=folder / "labels.csv", values=["value"])
    assert values.kind == "values" and values.y.flatten().tolist() == [0, 1, 2, 3, 4, 5] and values.classes == 0
    assert read(path=folder / "labels.csv", indicators=["holds"]).y.flatten().tolist() == [0, 1] * 3
    packed = zipped(folder, tmp_path / "p.zip")
    (tmp_path / "labels.tsv").write_text((folder / "labels.csv").read_text().replace(",", "\t"))
    other = read(path=tmp_path / "labels.tsv", root=packed, transfer_path=folder / "transfer")
    assert torch.equal(other.x[:6], table.x) and other.y.tolist() == [0, 0, 0, 1, 1, 1, *[-1] * 6]
    (tmp_path / "odd.csv").write_text("path,label\n../photos/train/cat/0.png,cat\n")
    refused(r"odd.csv, line 2: .*'\.\./photos/train/cat/0.png' leads outside", path=tmp_path / "odd.csv", root=packed)
    (tmp_path / "odd.csv").write_text("path,label\ntrain/cat/7.png,cat\n")
    refused("odd.csv, line 2: .*7.png: no file", path=tmp_path / "odd.csv", root=folder)
    refused("odd.csv, line 2: .*7.png: is not in it", path=tmp_path / "odd.csv", root=packed)


@pytest.mark.parametrize("lazy", [False, True])
def test_rows_of_a_table_without_a_label_are_a_pool(folder, tmp_path, lazy):
    names = [f"train/{label}/{n}.png" for label in ("cat", "dog") for n in range(3)]
    told = ["cat", "", "cat", " ", "dog", ""]
    (folder / "train.csv").write_text("path,label\n" + "\n".join(map(",".join, zip(names, told, strict=True))))
    held = "path,label\ntest/dog/0.png,dog\ntest/cat/1.png,cat\n"
    (folder / "test.csv").write_text(held)
    paths = {"path": folder / "train.csv", "test_path": folder / "test.csv"}
    table = read(**paths, transfer_path=folder / "transfer", lazy=lazy)
    order = [names[0], names[2], names[4], "test/dog/0.png", "test/cat/1.png", names[1], names[3], names[5]]
    wanted = [read(path=folder / "train").tensor, read(path=folder / "test").tensor]
    at = {name: wanted[0][n] for n, name in enumerate(names)}
    at |= {"test/dog/0.png": wanted[1][3], "test/cat/1.png": wanted[1][1]}
    assert torch.equal(table.tensor[:8], torch.stack([at[name] for name in order]))
    assert table.y.tolist() == [0, 0, 1, 1, 0, *[-1] * 9] and table.labels == ["cat", "dog"]
    assert {name: rows.tolist() for name, rows in table.official.items()} == {
        "train": [0, 1, 2], "test": [3, 4], "transfer": [*range(5, 14)],
    }  # fmt: skip
    assert table.columns["path"][:8] == order
    (note,) = table.notes
    assert note.endswith("train.csv: 3 of 6 rows have no label in column 'label': the split `transfer`")
    alone = read(path=folder / "train.csv", lazy=lazy)
    assert [*alone.official] == ["train", "transfer"] and alone.y.tolist() == [0, 0, 1, -1, -1, -1]
    with pytest.raises(MeshError, match=r"train\.csv, line 3: .*dog/9\.png: no file"):
        (folder / "train.csv").write_text(f"path,label\n{names[0]},cat\ntrain/dog/9.png,\n")
        _ = read(path=folder / "train.csv", lazy=lazy).tensor
    (folder / "test.csv").write_text(held.replace(",cat", ","))
    (folder / "train.csv").write_text(f"path,label\n{names[0]},cat\n{names[3]},dog\n")
    refused("test.csv, column 'label', line 3: '' is not a class", **paths, lazy=lazy)


def test_a_table_of_which_no_row_has_a_label(folder):
    (folder / "train.csv").write_text("path,label\ntrain/cat/0.png,\ntrain/dog/0.png,\n")
    refused("train.csv: no row has a label in column 'label'", "`transfer_path`, for rows without",
            path=folder / "train.csv")  # fmt: skip
    refused("no row has a label", "(classes: 2), no setting `label` and no column 'label'",
            path=folder / "train.csv", classes=2)  # fmt: skip
    (folder / "train.csv").write_text("path\ntrain/cat/0.png\ntrain/dog/0.png\n")
    assert read(path=folder / "train.csv", classes=2).y is None


def test_settings_of_tables_are_refused_for_folders(folder):
    with pytest.raises(ValueError, match="`label` goes with a table of paths"):
        read(path=folder, label="x")


def test_resize_and_mode(folder):
    table = read(path=folder, resize=4, mode="grey")
    assert table.x.shape == (24, 1, 4, 4) and table.images == {"resize": (4, 4), "mode": "grey"}
    made = Image.fromarray(pixels(0)).convert("L").resize((4, 4), Image.Resampling.BILINEAR)
    assert torch.equal(table.x[0, 0], torch.from_numpy(np.array(made)).float() / 255)
    assert read(path=folder, resize=[2, 3]).x.shape == (24, 3, 2, 3)


def test_images_are_turned_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    write(tmp_path / "c" / "turned.png", pixels(0), exif=exif)
    write(tmp_path / "c" / "other.png", pixels(0, 5, 6))
    table = read(path=tmp_path)
    assert torch.equal(table.x[1], torch.from_numpy(np.rot90(pixels(0), -1).transpose(2, 0, 1).copy()).float() / 255)


# What is wrong with a file


def bomb():
    """A PNG whose header says that it has more pixels than memory."""

    def chunk(name, data=b""):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND")


def packed(image, form="PNG", **how):
    image.save(data := io.BytesIO(), form, **how)
    return data.getvalue()


def drawn(*args, **how):
    return Image.fromarray(pixels(*args, **how))


def animation():
    frames = [drawn(number) for number in range(3)]
    return packed(frames[0], save_all=True, append_images=frames[1:])


WRONG = {
    "truncated": (lambda: packed(Image.fromarray(pixels(0, 90, 90)))[:-900], "truncated", "complete PNG"),
    "no image": (lambda: b"not an image at all", "no PNG, JPEG or WebP", "complete PNG"),
    "empty": (lambda: b"", "no PNG, JPEG or WebP", "complete PNG"),
    "bomb": (bomb, "more than 89,478,485 pixels", "smaller image"),
    "size": (lambda: packed(drawn(0, 6, 7)), "7 x 6 pixels, where others have 5 x 6", "resize: [6, 5]"),
    "grey": (lambda: packed(drawn(0, channels=1)), "1 channel .grey., where others have 3", "mode: rgb"),
    "rgba": (lambda: packed(drawn(0, channels=4)), "4 channels", "mode: rgb"),
    "palette": (lambda: packed(drawn(0).quantize(16)), "a palette", "mode: rgb"),
    "deep": (lambda: packed(Image.fromarray(np.full((6, 5), 9000, np.uint16))), "8 bits a channel", "8 bits"),
    "animation": (animation, "an animation of 3 images", "one image"),
    "gif": (lambda: packed(Image.fromarray(pixels(0)), "GIF"), "no PNG, JPEG or WebP", "complete PNG"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(WRONG))
def test_a_bad_image_is_named_and_left_out_only_where_the_file_says_so(folder, tmp_path, kind):
    data, what, instead = WRONG[kind]
    (folder / "train" / "cat" / "1.png").write_bytes(data())
    error = refused(f"train/cat/1.png: .*{what}", instead, path=folder)
    assert "bad: drop" in error.instead
    refused(f"photos.zip: train/cat/1.png: .*{what}", path=zipped(folder, tmp_path / "photos.zip"))
    table = read(path=folder, bad="drop")
    assert len(table) == 23 and table.y.tolist()[:6] == [0, 0, 1, 1, 1, 0]
    assert "train/cat/1.png" not in table.columns["path"] and len(table.official["train"]) == 5
    (note,) = table.notes
    assert note.startswith("1 of the 6 images of train are left out (bad: drop): first ") and "train/cat/1.png" in note


def test_jpeg_and_webp_are_read_and_most_images_must_be(folder, tmp_path):
    for name in ("a.jpg", "b.JPEG", "c.webp"):
        write(tmp_path / "all" / "c" / name, pixels(0))
    assert read(path=tmp_path / "all").x.shape == (3, 3, 6, 5)
    for one in ("a.jpg", "b.JPEG"):
        (tmp_path / "all" / "c" / one).write_bytes(b"x")
    refused("2 of its 3 images of train cannot be read", "most of which", path=tmp_path / "all", bad="drop")


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png", "..\\out.png", "C:\\out.png"])
def test_paths_that_lead_out_of_an_archive_are_refused(tmp_path, name):
    data = packed(Image.fromarray(pixels(0)))
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("c/0.png", data)
        file.writestr(name, data)
    refused("bad.zip: the path .* leads outside of it", "stay inside", path=tmp_path / "bad.zip")
    with tarfile.open(tmp_path / "bad.tar", "w") as file:
        one = tarfile.TarInfo(name)
        one.size = len(data)
        file.addfile(one, io.BytesIO(data))
    refused("bad.tar: the path .* leads outside of it", "stay inside", path=tmp_path / "bad.tar")


def test_links_in_archives_are_refused(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as file:
        one = tarfile.TarInfo("c/0.png")
        one.type, one.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(one)
    refused("bad.tar: c/0.png: is a link", "files and folders", path=tmp_path / "bad.tar")


def test_damaged_archives_are_named(folder, tmp_path, monkeypatch):
    whole = zipped(folder, tmp_path / "a.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    refused("half.zip: damaged", "complete .zip", path=tmp_path / "half.zip")
    at = whole.index(b"IDAT") + 8
    (tmp_path / "bit.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refused(r"bit.zip: .*\.png: damaged \(Bad CRC-32", "complete .zip", path=tmp_path / "bit.zip")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(folder, "photos")
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "half.tar").write_bytes(whole[: len(whole) // 2 + 100])
    refused("half.tar: (.*: )?damaged", "complete .tar", path=tmp_path / "half.tar")
    (tmp_path / "none.tar").write_bytes(b"x" * 2000)
    refused("none.tar: damaged", "complete .tar", path=tmp_path / "none.tar")
    monkeypatch.setattr(archive, "LARGEST", 10)
    for path in (folder, tmp_path / "a.zip", tmp_path / "a.tar"):
        refused("holds .* bytes, more than the 10 of one file", "smaller", path=path)


def test_a_file_in_an_archive_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for number in range(2):
            file.writestr("c/0.png", packed(Image.fromarray(pixels(number))))
    refused("c/0.png: is in it twice", path=tmp_path / "a.zip")


def test_no_images_and_no_such_path(tmp_path):
    refused("no file or folder", path=tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    refused("is no folder and no archive", ".zip", path=tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    refused("no image", "a folder for each class", path=tmp_path / "empty")


def test_without_pillow_it_says_what_to_install(folder, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'PIL'")

    monkeypatch.setattr(images, "import_module", missing)
    refused("images need Pillow", "kdmesh[images]", path=folder)
