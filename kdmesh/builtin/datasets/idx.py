"""IDX files: the format of MNIST and of the sets made after it.

Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits". A file is two zero bytes, a type byte
(8: unsigned bytes), the number of dimensions, each dimension as a big-endian 32-bit number, and the values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.streams.checks import labels
from kdmesh.streams.host_memory import is_large
from kdmesh.streams.table import Table
from kdmesh.streams.texts import concatenate
from kdmesh.streams.unread import Unread
from kdmesh.tables.files import read_bytes, regular
from kdmesh.tables.idx import header, parse
from kdmesh.tables.kinds import is_packed
from kdmesh.tables.mapped import Mapped, Stored

WHERE = "data.dataset.idx.folder"
FIRST = 16  # bytes of the header of images
BY = 255.0  # by what pixels are divided


def idx(folder: str, classes: int | None = None, lazy: bool | None = None) -> Table:
    """Return the images of a folder as ``[N, 1, height, width]`` with values 0 .. 1, the t10k files as official test.

    Expects ``{train,t10k}-{images-idx3,labels-idx1}-ubyte``, plain or ``.gz``; the t10k pair may be absent. ``lazy``:
    images are read when a batch asks for them, of plain files.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MeshError(f"no folder {root}", where=WHERE, instead="the folder that holds train-images-idx3-ubyte(.gz)")
    parts = ["train", *(["t10k"] if any(root.glob("t10k-*")) else [])]
    files = [_find(root, f"{part}-images-idx3-ubyte") for part in parts]
    packed = [file for file in files if is_packed(file) and file.exists()]
    if lazy and packed:
        what = f"{packed[0]} is packed, and is read whole"
        raise MeshError(what, where="data.dataset.idx.lazy", instead="the file unpacked, `gunzip -k`")
    if lazy is None:
        lazy = not packed and is_large(4 * sum(file.stat().st_size for file in files if file.is_file()))
    images, y = _pair(root, "train", classes, lazy)
    count = int(y.max()) + 1 if classes is None else classes
    official: dict[str, Tensor] = {}
    x: Any = images
    if "t10k" in parts:
        test_images, test_y = _pair(root, "t10k", count, lazy)
        if test_images.shape[1:] != images.shape[1:]:
            shapes = f"{list(test_images.shape[2:])} in t10k, {list(images.shape[2:])} in train"
            raise MeshError(f"{root}: images of {shapes}", where=WHERE, instead="images of one size")
        official = {"test": torch.arange(len(images), len(images) + len(test_images))}
        x, y = concatenate([images, test_images]), torch.cat([y, test_y])
    return Table(x, y, count, official=official, source=str(root), divided_by=BY)


def _pair(root: Path, part: str, classes: int | None, lazy: bool) -> tuple[Tensor | Unread, Tensor]:
    """Images ``[N, 1, height, width]`` of values 0 .. 1 and labels ``[N]`` int64 of one part."""
    image_path, label_path = _find(root, f"{part}-images-idx3-ubyte"), _find(root, f"{part}-labels-idx1-ubyte")
    if lazy:
        images: Tensor | Unread = _mapped(image_path)
    else:
        images = parse(read_bytes(image_path, WHERE), image_path, 3, WHERE).unsqueeze(1).float().div_(BY)
    y, _ = labels(
        parse(read_bytes(label_path, WHERE), label_path, 1, WHERE), len(images), classes, str(label_path), WHERE
    )
    return images, y


def _mapped(file: Path) -> Mapped:
    regular(file, WHERE, whole=False)
    try:
        with file.open("rb") as opened:
            begin, shape = header(opened.read(FIRST), file.stat().st_size, file, 3, WHERE)
    except OSError as error:
        raise MeshError(f"{file}: {error.strerror or error}", where=WHERE, instead="a readable file") from None
    return Mapped(Stored(file, "u1", begin, shape), str(file), WHERE, (1, *shape[1:]), BY)


def _find(root: Path, name: str) -> Path:
    plain = root / name
    return plain if plain.exists() else root / f"{name}.gz"
