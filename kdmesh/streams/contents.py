"""What a sample is, whatever file, order or split it came by: one 64-bit number made of its values alone."""

from __future__ import annotations

import base64
import binascii
import json
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.streams.texts import Texts
from kdmesh.streams.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdmesh.streams.texts import Sample
    from kdmesh.streams.tokens import Encoded

MOST = 2**19
"""Keys that a record holds, 4 MiB; of more samples it holds those of the smallest keys, which is a fair draw."""

DIGEST = 16
"""Bytes of a sample's digest in the store."""

_CHUNK = 2**22  # values that are hashed at a time
_AT_ONCE = 2**14  # texts, likewise


def keys(x: Tensor | Texts | Unread) -> Tensor:
    """Return a key for each sample, ``[N]`` int64, which equal samples share, in any table, on any machine.

    Others share one by a chance of 2**-64. A sample of numbers is its float32 values in order, whatever its shape; of
    values that are all ``k / 255``, as images often are, the whole numbers ``k``. A text is its words: text, pair,
    prompt, turns and tools; of a list, its query alone. What is to be learned of it, a label or spans, does not count.
    """
    if isinstance(x, Texts):
        starts = range(0, max(len(x), 1), _AT_ONCE)
        return torch.cat([_numbers([*map(_known_by, x[start : start + _AT_ONCE])]) for start in starts])
    if isinstance(x, Unread):
        return torch.cat([keys(part) for part in x.parts()])
    flat = x.detach().float().flatten(1)
    rows = max(1, _CHUNK // max(flat.shape[1], 1))
    found: list[bytes] = []
    for part in flat.split(rows) if len(flat) else ():
        data = memoryview(_plain(part).numpy().tobytes())
        size = len(data) // len(part)
        found += [_digest(data[at : at + size]) for at in range(0, len(data), size)]
    return _numbers(found)


def digests(x: Tensor | Unread | Encoded) -> Tensor:
    """Return a digest of each sample as a model is given it, ``[N, 16]`` uint8: of equal bits alone two are the same.

    Of a text these are its tokens, which of them ask for an answer, and where those of a list begin. Shape and type are
    the same for all, and no part of it.
    """
    if isinstance(x, Unread):
        return torch.cat([digests(part) for part in x.parts()])
    if isinstance(x, Tensor):
        flat = x.detach().cpu().contiguous().flatten(1)
        data, size = flat.view(torch.uint8).flatten().numpy().data, flat.shape[1] * flat.element_size()
        return _stacked(data[at : at + size] for at in range(0, len(flat) * size, size))
    return _stacked(x.contents())


def seen(of: Tensor, ids: Tensor, *drawn: int) -> Tensor:
    """Return digests ``[N, 16]`` of samples as a view shows them, of those of the samples and all that it draws by."""
    more = b"".join(number.to_bytes(8, "little", signed=True) for number in drawn)
    rows, known = of.cpu().contiguous().numpy(), ids.cpu().numpy().astype("<i8")
    both = zip(rows, known, strict=True)
    return _stacked(row.tobytes() + one.tobytes() + more for row, one in both)


def _stacked(parts: Iterable[Any]) -> Tensor:
    found = bytearray().join(blake2b(part, digest_size=DIGEST).digest() for part in parts)
    flat = torch.frombuffer(found, dtype=torch.uint8) if found else torch.empty(0, dtype=torch.uint8)
    return flat.view(-1, DIGEST)


def pack(found: Tensor) -> dict[str, Any]:
    """Return keys as JSON: how many different ones there are, ``count``, and in ``keys`` at most :data:`MOST` of them.

    They are sorted, 8 bytes each, little-endian, in base64.
    """
    every = found.unique()
    kept = every[:MOST].numpy().astype("<i8").tobytes()
    return {"count": len(every), "keys": base64.b64encode(kept).decode()}


class Keys:
    """The keys of a record: which samples are among them, as far as it holds them all."""

    def __init__(self, packed: dict[str, Any]) -> None:
        """``packed``: of :func:`pack`; anything else is a KeyError, TypeError or ValueError."""
        try:
            raw = base64.b64decode(packed["keys"], validate=True)
            held = torch.from_numpy(np.frombuffer(raw, "<i8").astype(np.int64))
        except binascii.Error as error:
            raise ValueError(str(error)) from None
        self.count = int(packed["count"])
        if self.count < len(held) or (self.count > len(held) and not len(held)):
            raise ValueError(f"{len(held)} keys of {self.count}")
        self._held, self._whole = held, self.count == len(held)

    def told(self, asked: Tensor) -> Tensor:
        """Whether the record can tell of samples with these keys, ``[N]`` bool: of some it would not hold the key."""
        return torch.ones(len(asked), dtype=torch.bool) if self._whole else asked <= self._held[-1]

    def have(self, asked: Tensor) -> Tensor:
        """Whether samples with these keys are among them, ``[N]`` bool."""
        return torch.isin(asked, self._held)


def _plain(values: Tensor) -> Tensor:
    """Float32 rows ``[n, d]`` in the form that is hashed: no -0.0, and pixels as whole numbers."""
    values = values + 0.0
    whole = (values * 255).round()
    pixels = ((whole / 255 == values) & (whole >= 0) & (whole <= 255)).all(1)
    return torch.where(pixels[:, None], whole, values)


def _known_by(one: Sample) -> bytes:
    return _digest(json.dumps([one.text, one.pair, one.prompt, one.messages, one.tools]).encode())


def _digest(data: Any) -> bytes:
    return sha256(data).digest()[:8]


def _numbers(digests: list[bytes]) -> Tensor:
    return torch.from_numpy(np.frombuffer(b"".join(digests), "<i8").astype(np.int64))
