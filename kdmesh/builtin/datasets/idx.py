"""IDX files: the format of MNIST and of the sets made after it.

Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits". A file is two zero bytes, a type byte
(8: unsigned bytes), the number of dimensions, each dimension as a big-endian 32-bit number, and the values.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.streams.checks import labels
from kdmesh.streams.table import Table
from kdmesh.tables.files import read_bytes
from kdmesh.tables.idx import parse

WHERE = "data.dataset.idx.folder"


def idx(folder: str, classes: int | None = None) -> Table:
    """Return the images of a folder as ``[N, 1, height, width]`` with values 0 .. 1, the t10k files as official test.

    Expects ``{train,t10k}-{images-idx3,labels-idx1}-ubyte``, plain or ``.gz``; the t10k pair may be absent.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MeshError(f"no folder {root}", where=WHERE, instead="the folder that holds train-images-idx3-ubyte(.gz)")
    images, y = _pair(root, "train", classes)
    count = int(y.max()) + 1 if classes is None else classes
    official: dict[str, Tensor] = {}
    if any(root.glob("t10k-*")):
        test_images, test_y = _pair(root, "t10k", count)
        if test_images.shape[1:] != images.shape[1:]:
            shapes = f"{list(test_images.shape[1:])} in t10k, {list(images.shape[1:])} in train"
            raise MeshError(f"{root}: images of {shapes}", where=WHERE, instead="images of one size")
        official = {"test": torch.arange(len(images), len(images) + len(test_images))}
        images, y = torch.cat([images, test_images]), torch.cat([y, test_y])
    x = images.unsqueeze(1).float().div_(255)
    return Table(x, y, count, official=official, source=str(root), divided_by=255)


def _pair(root: Path, part: str, classes: int | None) -> tuple[Tensor, Tensor]:
    """Images ``[N, height, width]`` uint8 and labels ``[N]`` int64 of one part."""
    image_path, label_path = _find(root, f"{part}-images-idx3-ubyte"), _find(root, f"{part}-labels-idx1-ubyte")
    images = parse(read_bytes(image_path, WHERE), image_path, 3, WHERE)
    y, _ = labels(
        parse(read_bytes(label_path, WHERE), label_path, 1, WHERE), len(images), classes, str(label_path), WHERE
    )
    return images, y


def _find(root: Path, name: str) -> Path:
    plain = root / name
    return plain if plain.exists() else root / f"{name}.gz"
