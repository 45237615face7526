"""Values as bytes, between processes that do not trust each other: JSON and plain numbers, nothing that is run.

A message is the length of a header, the header, and the numbers of its arrays one after the other. The header is JSON
of what the value is made of: None, booleans, whole and other numbers, text, lists, tuples, mappings, bytes and arrays.
What the numbers mean, and whether there are the right ones, who reads the value checks.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kdmesh.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""Of arrays that travel; bfloat16 travels as int16, as :mod:`kdmesh.hosts.packing` makes it."""
HEADER = 16 * 2**20
"""The most bytes of a header."""
DEEP = 24
"""The most that values may stand in one another."""
PREFIX = struct.Struct("<Q")


class Garbled(RunFailed):
    """Bytes that are no value, or a value that does not travel."""


def pack(value: Any) -> bytes:
    """A value as one message. Garbled for what does not travel."""
    blobs: list[bytes | memoryview] = []
    header = json.dumps(_written(value, blobs, 0), separators=(",", ":"), allow_nan=False).encode()
    if len(header) > HEADER:
        raise Garbled(f"a message whose header has {len(header):,} bytes, and {HEADER:,} are the most")
    return b"".join([PREFIX.pack(len(header)), header, *blobs])


def unpack(message: bytes | memoryview) -> Any:
    """The value of a message. Garbled for bytes that are none; arrays are the reader's own."""
    view = memoryview(message)
    if len(view) < PREFIX.size:
        raise Garbled(f"a message of {len(view)} bytes")
    (length,) = PREFIX.unpack(view[: PREFIX.size])
    if length > HEADER or PREFIX.size + length > len(view):
        raise Garbled(f"a header of {length:,} bytes in a message of {len(view):,}")
    try:
        tree = json.loads(bytes(view[PREFIX.size : PREFIX.size + length]), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"a header that is no JSON: {error}") from None
    reader = _Reader(view[PREFIX.size + length :])
    value = reader.read(tree, 0)
    if reader.at != len(reader.rest):
        raise Garbled(f"{len(reader.rest) - reader.at:,} bytes that belong to nothing")
    return value


def _written(value: Any, blobs: list[bytes | memoryview], deep: int) -> Any:
    """The JSON of a value; bytes and arrays go to ``blobs``, in the order in which they stand."""
    if deep > DEEP:
        raise Garbled(f"values that stand in one another {deep} deep")
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else ["n", str(value)]
    if isinstance(value, bytes):
        blobs.append(value)
        return ["b", len(value)]
    if isinstance(value, np.ndarray):
        if str(value.dtype) not in DTYPES:
            raise Garbled(f"an array of {value.dtype}")
        whole = np.ascontiguousarray(value)
        blobs.append(whole.reshape(-1).view(np.uint8).data if whole.size else b"")
        return ["a", str(value.dtype), list(value.shape)]
    if isinstance(value, np.generic):
        return _written(value.item(), blobs, deep)
    if isinstance(value, list | tuple):
        return ["l" if isinstance(value, list) else "t", *(_written(one, blobs, deep + 1) for one in value)]
    if isinstance(value, Mapping):
        pairs = [[_written(key, blobs, deep + 1), _written(one, blobs, deep + 1)] for key, one in value.items()]
        return ["d", *pairs]
    raise Garbled(f"a value of {type(value).__name__}, which does not travel")


def _refuse(text: str) -> Any:
    raise ValueError(text)


class _Reader:
    """Reads a tree, and takes the numbers of its arrays from what follows the header."""

    def __init__(self, rest: memoryview) -> None:
        self.rest, self.at = rest, 0

    def read(self, tree: Any, deep: int) -> Any:
        """The value of a part of the tree."""
        if deep > DEEP:
            raise Garbled(f"values that stand in one another {deep} deep")
        if tree is None or isinstance(tree, bool | int | float | str):
            return tree
        if not isinstance(tree, list) or not tree or not isinstance(tree[0], str):
            raise Garbled(f"a part that is no value: {tree!r:.40}")
        kind, *parts = tree
        if kind in ("l", "t"):
            items = [self.read(part, deep + 1) for part in parts]
            return items if kind == "l" else tuple(items)
        if kind == "d":
            return self._mapping(parts, deep)
        if kind == "n" and parts in (["nan"], ["inf"], ["-inf"]):
            return float(parts[0])
        if kind == "b" and len(parts) == 1:
            return bytes(self._take(parts[0]))
        if kind == "a" and len(parts) == 2:
            return self._array(*parts)
        raise Garbled(f"a part of the kind {kind!r:.20}")

    def _mapping(self, parts: Sequence[Any], deep: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for pair in parts:
            if not isinstance(pair, list) or len(pair) != 2:
                raise Garbled("a mapping of something else than pairs")
            key, value = self.read(pair[0], deep + 1), self.read(pair[1], deep + 1)
            try:
                twice = key in found
            except TypeError:
                raise Garbled(f"a key of {type(key).__name__}") from None
            if twice:
                raise Garbled("a mapping with one key twice")
            found[key] = value
        return found

    def _take(self, size: Any) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self.rest) - self.at:
            raise Garbled(f"{size!r:.20} bytes where {len(self.rest) - self.at:,} are left")
        part = self.rest[self.at : self.at + size]
        self.at += size
        return part

    def _array(self, dtype: Any, shape: Any) -> np.ndarray:
        if dtype not in DTYPES:
            raise Garbled(f"an array of {dtype!r:.20}")
        if not isinstance(shape, list) or len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
            raise Garbled(f"an array of shape {shape!r:.40}")
        if 0 in shape and math.prod(max(1, n) for n in shape) >= 2**60:
            raise Garbled(f"an array of shape {shape!r:.40}")
        part = self._take(math.prod(shape) * np.dtype(dtype).itemsize)
        if dtype == "bool" and len(part) and int(np.frombuffer(part, np.uint8).max()) > 1:
            raise Garbled("an array of truth values that are none")
        return np.frombuffer(part, dtype).reshape(shape).copy()
