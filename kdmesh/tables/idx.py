"""IDX files: two zero bytes, a type byte (8: unsigned bytes), the number of dimensions, each as a big-endian 32-bit
number, and the values.

Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from kdmesh.errors import MeshError

KINDS = {1: "labels", 3: "images"}


def header(data: bytes, size: int, path: Path, dimensions: int, where: str) -> tuple[int, tuple[int, ...]]:
    """Where the values of an IDX file begin, and its shape, by its first bytes; ``size``: of the whole file.

    ``where``: the setting that names the file, for errors. Every field is checked.
    """
    begin = 4 + 4 * dimensions
    expected = bytes([0, 0, 8, dimensions])
    if data[:4] != expected:
        raise MeshError(
            f"{path}: starts with {data[:4].hex(' ')} where {expected.hex(' ')} was expected",
            where=where,
            instead=f"an IDX file of {KINDS[dimensions]} (unsigned bytes, {dimensions} dimensions)",
        )
    if len(data) < begin:
        raise MeshError(f"{path}: truncated in its header", where=where, instead="a complete copy")
    shape = struct.unpack(f">{dimensions}I", data[4:begin])
    count = math.prod(shape)
    if not count or size - begin != count:
        raise MeshError(
            f"{path}: {size - begin} values where its header says {' x '.join(map(str, shape))}",
            where=where,
            instead="a complete copy that is not empty",
        )
    return begin, shape


def parse(data: bytes, path: Path, dimensions: int, where: str) -> Tensor:
    """Return the bytes of an IDX file as a uint8 tensor with that many dimensions."""
    begin, shape = header(data, len(data), path, dimensions, where)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=begin).reshape(shape)
