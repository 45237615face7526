"""Messages in pieces of at most a MiB, several messages at a time, with a number each and a limit to their size."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kdmesh.backends.wire import Garbled

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = struct.Struct("<QB")  # the message's number; 1 in its last piece
PIECE = 2**20
LARGEST = 2**31
"""Bytes at most of the messages that are under way."""
AT_ONCE = 16
"""Messages that may be under way at a time."""


def pieces(number: int, message: bytes) -> Iterator[bytes]:
    """A message in pieces, in order."""
    for start in range(0, max(1, len(message)), PIECE):
        last = start + PIECE >= len(message)
        yield HEAD.pack(number, last) + message[start : start + PIECE]


class Joined:
    """Puts pieces together that arrive in order for each message."""

    def __init__(self, largest: int = LARGEST) -> None:
        self.largest, self._size = largest, 0
        self._parts: dict[int, list[bytes]] = {}

    def add(self, piece: bytes) -> tuple[int, bytes] | None:
        """The message that a piece completes, with its number. Garbled for a piece that is none, or too much."""
        if len(piece) < HEAD.size or len(piece) > HEAD.size + PIECE:
            raise Garbled(f"a piece of {len(piece):,} bytes")
        number, last = HEAD.unpack_from(piece)
        if last not in (0, 1) or (not last and len(piece) != HEAD.size + PIECE):
            raise Garbled(f"a piece of {len(piece):,} bytes with others to come")
        self._size += len(piece) - HEAD.size
        parts = self._parts.setdefault(number, [])
        parts.append(piece[HEAD.size :])
        if len(self._parts) > AT_ONCE:
            raise Garbled(f"more than {AT_ONCE} messages at a time")
        if self._size > self.largest:
            raise Garbled(f"messages of more than {self.largest:,} bytes")
        if not last:
            return None
        del self._parts[number]
        whole = b"".join(parts)
        self._size -= len(whole)
        return number, whole
