"""A safetensors file whose name is the sha256 of its bytes: written whole, checked when it is opened, and mapped.

What is taken of one is copied row by row; nothing else of it is ever in this process's own memory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.files import aside
from kdmesh.store.key import canonical

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
SUFFIX = ".safetensors"
ABOUT = "kdmesh"  # the field of a file's header that says what it is, as JSON
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_HEADER = 8  # bytes that say how long the header is
MOST = 2**24  # bytes of a header that are read to look at it


class Unreadable(Exception):
    """A file that is not what was written; the message says how."""


class Newer(Exception):
    """A file of a later version's format, which is left as it is."""


def written_as(dtype: torch.dtype) -> str:
    """The name of a type of numbers in a file. ValueError for one that shards do not hold."""
    for name, one in DTYPES.items():
        if one is dtype:
            return name
    raise ValueError(f"the store holds no {dtype}")


def write(folder: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], anew: bool = False) -> str:
    """Write tensors of the CPU into a folder; return the file's name. OSError where that fails.

    ``anew``: also where there is a file of that name.
    """
    pieces = _pieces(tensors, about)
    name = _name(pieces)
    path = folder / name
    if anew or not path.exists():
        with aside(path) as draft, draft.open("wb") as file:
            for piece in pieces:
                file.write(piece)
    return name


def peek(path: Path) -> dict[str, Any]:
    """A file's header, unchecked: shapes of tensors by name. OSError, or ValueError for what is no such file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER), "little")
        if length > MOST:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    return {name: one["shape"] for name, one in header.items() if name != "__metadata__"}


def named(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """The name that :func:`write` would give a file."""
    return _name(_pieces(tensors, about))


def _pieces(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> list[memoryview]:
    """The bytes of a file: its header, and each tensor's own, which are not copied.

    They are laid out here, and not by the library, so that the same rows are the same bytes whatever its version. Wide
    numbers come first: each tensor then begins at a multiple of its numbers' size.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {ABOUT: canonical({**about, "format": FORMAT}).decode()}}
    data, end = [], 0
    for name in order:
        one = tensors[name].detach().contiguous()
        begin, end = end, end + one.numel() * one.element_size()
        header[name] = {"dtype": written_as(one.dtype), "shape": list(one.shape), "data_offsets": [begin, end]}
        data.append(one.reshape(-1).view(torch.uint8).numpy().data)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % _HEADER)
    return [memoryview(len(text).to_bytes(_HEADER, "little") + text), *data]


def _name(pieces: list[memoryview]) -> str:
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece)
    return total.hexdigest() + SUFFIX


class Mapped:
    """An open file. It stays readable also after it is deleted.

    Attributes:
        name: of the file.
        size: of the file, in bytes.
        about: what is written in it beside tensors.
        parts: each tensor as rows of bytes ``[n, width]``, its type, and the shape of a row; of a number alone, n is 1.
    """

    def __init__(self, path: Path) -> None:
        """Map a file and check it. Unreadable, Newer, or OSError."""
        self.name, self.size = path.name, path.stat().st_size
        if self.size <= _HEADER:
            raise Unreadable(f"it holds {self.size} bytes")
        try:
            self._tensor = torch.from_file(str(path), shared=False, size=self.size, dtype=torch.uint8)
        except RuntimeError as error:  # the file went or became shorter, or there is no room in the table of maps
            path.stat()  # FileNotFoundError where it went since: another process merged it, or deleted the entry
            raise OSError(str(error).splitlines()[0]) from None
        data = self._tensor.numpy()
        data.flags.writeable = False
        if hashlib.sha256(data.data).hexdigest() + SUFFIX != self.name:
            raise Unreadable("its bytes are not those that were written")
        try:
            self._parse(data)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            raise Unreadable(f"it is no file of a store: {error}") from None

    def _parse(self, data: np.ndarray) -> None:
        end = _HEADER + int(data[:_HEADER].view("<u8")[0])
        header: dict[str, Any] = json.loads(bytes(data[_HEADER:end]))
        self.about: dict[str, Any] = json.loads(header.pop("__metadata__")[ABOUT])
        if self.about["format"] > FORMAT:
            raise Newer(f"format {self.about['format']}")
        self.parts: dict[str, tuple[np.ndarray, torch.dtype, list[int]]] = {}
        self._whole: dict[str, Tensor] = {}
        for name, one in header.items():
            first, last = one["data_offsets"]
            dtype, (rows, *shape) = DTYPES[one["dtype"]], one["shape"] or [1]
            wide = math.prod(shape) * dtype.itemsize
            part = data[end + first : end + last]
            if len(part) != rows * wide:
                raise ValueError(f"{name} has the wrong length")
            self.parts[name] = (part.reshape(rows, wide), dtype, shape)
            bytes_of = self._tensor[end + first : end + last]
            self._whole[name] = bytes_of.view(dtype).view(one["shape"])

    def whole(self) -> dict[str, Tensor]:
        """All tensors, mapped: nobody may change them."""
        return dict(self._whole)

    def copy(self, path: Path) -> None:
        """Write all of its bytes to another file. OSError where that fails."""
        with path.open("wb") as file:
            file.write(self._tensor.numpy().data)

    def empty(self, name: str, count: int) -> Tensor:
        """Room for so many rows of a tensor."""
        _, dtype, shape = self.parts[name]
        return torch.empty((count, *shape), dtype=dtype)

    def take(self, name: str, places: np.ndarray) -> Tensor:
        """Rows of a tensor, copied."""
        return torch.index_select(self._whole[name], 0, torch.from_numpy(places))
