"""Raw samples in bytes: what a process sent, wrote or holds is searched for them, in the forms that a leak may have.

    search = Search({"north": rows}, public=[others])
    assert not search(packets, "packets") and not [one for place, part in memory(pid) for one in search(part, place)]

Found are samples of which a run of 16 values (24 of one byte each) stands one after the other: as floating point
numbers of 16, 32 and 64 bits and bfloat16, as whole numbers, quantised to 8 bits, or written out in decimals; each also
in base64, in hexadecimal digits, or compressed by zlib, gzip, bzip2 or lzma, also within one another. **What is not
found**: values in another order or mixed with others, scaled, encrypted, or told by other means than numbers.
"""

from __future__ import annotations

import binascii
import bz2
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RUN = 16
"""Values that stand one after the other; of those of one byte half as many more."""
DISTINCT = 6
"""How many of these differ: what nearly any memory holds, such as zeros, tells nothing."""
WITHIN = 3
"""How deep what is packed is unpacked."""
PART, PIECE = 2**26, 2**12
BROKEN = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
MOST = 2**24
"""Bytes of one stream that are decompressed."""
TEXT = re.compile(rb"""[-+0-9.eE,;:|/\s\[\](){}'"\\nt_]{32,}""")
NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|[-+]?\.\d+(?:[eE][-+]?\d+)?")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{32,}")
HEX = re.compile(rb"[0-9a-fA-F]{48,}")
PACKED = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08|BZh[1-9]1AY&SY|\xfd7zXZ\x00")
BITS = 22
MIX = np.uint64(0x9E3779B97F4A7C15)


class Found(NamedTuple):
    """A sample, by whose it is and its row; ``how``: in which form; ``where``: in what."""

    whose: str
    row: int
    how: str
    where: str


class Search:
    """Looks for samples ``[N, ...]``, given by whose they are; rows of ``public`` give none away.

    Samples that are prepared before they are trained on are given as they are in their file, and as they become.
    """

    def __init__(self, samples: Mapping[str, Any], public: Sequence[Any] = ()) -> None:
        self._patterns: dict[bytes, tuple[str, int, str]] = {}
        self._texts: dict[bytes, tuple[str, int, str]] = {}
        shown: set[bytes] = set()
        for rows in public:
            for how, values in _forms(_table(rows)):
                shown.update(part for _, part in _runs(values))
                if how == "float64":
                    shown.update(_key(part) for _, part in _pieces(values, RUN))
        for whose, rows in samples.items():
            for how, values in _forms(_table(rows)):
                for row, part in _runs(values):
                    if part not in shown:
                        self._patterns.setdefault(part, (whose, row, how))
                if how == "float64":
                    for row, piece in _pieces(values, RUN):
                        if (key := _key(piece)) not in shown:
                            self._texts.setdefault(key, (whose, row, "text"))
        self._anchored: dict[int, list[tuple[bytes, int]]] = {}
        for part in self._patterns:
            at = max(range(len(part) - 7), key=lambda at, part=part: len({*part[at : at + 8]}))  # type: ignore[misc]
            self._anchored.setdefault(int.from_bytes(part[at : at + 8], "little"), []).append((part, at))
        self._sorted = np.array(sorted(self._anchored), np.uint64)
        self._table = np.zeros(2**BITS, bool)
        self._table[_hash(self._sorted)] = True
        self._longest = max(map(len, self._patterns), default=0)

    @property
    def looked_for(self) -> dict[str, int]:
        """By whose they are, of how many samples there is something to look for."""
        known = {(whose, row) for whose, row, _ in (*self._patterns.values(), *self._texts.values())}
        return {name: sum(whose == name for whose, _ in known) for name in dict.fromkeys(whose for whose, _ in known)}

    def __call__(self, content: bytes, where: str) -> list[Found]:
        """The samples that some bytes hold, each form of each once."""
        found = dict.fromkeys(Found(whose, row, how, where) for whose, row, how in self._in(content, 0))
        return list(found)

    def _in(self, content: bytes, deep: int) -> Iterator[tuple[str, int, str]]:
        yield from self._plain(content)
        yield from self._written(content)
        if deep < WITHIN:
            for kind, inner in _unpacked(content):
                for whose, row, how in self._in(inner, deep + 1):
                    yield whose, row, f"{how}, in {kind}"

    def _plain(self, content: bytes) -> Iterator[tuple[str, int, str]]:
        """Whose patterns stand in some bytes: those that have one's eight bytes are compared."""
        for start in range(0, len(content), PART):
            part = content[start : start + PART + self._longest]
            for shift in range(8):
                count = (len(part) - shift) // 8
                if count < 1:
                    continue
                words = np.frombuffer(part, "<u8", count, shift)
                maybe = np.flatnonzero(self._table[_hash(words)])
                maybe = maybe[np.isin(words[maybe], self._sorted)]
                for place in maybe.tolist():
                    for pattern, at in self._anchored[int(words[place])]:
                        begin = shift + 8 * place - at
                        if begin >= 0 and part[begin : begin + len(pattern)] == pattern:
                            yield self._patterns[pattern]

    def _written(self, content: bytes) -> Iterator[tuple[str, int, str]]:
        """Whose values stand in some bytes as decimals."""
        for run in TEXT.finditer(content):
            numbers = np.array([float(one) for one in NUMBER.findall(run[0])], np.float64)
            for at in range(len(numbers) - RUN + 1):
                if (known := self._texts.get(_key(numbers[at : at + RUN]))) is not None:
                    yield known


def memory(process: int) -> Iterator[tuple[str, bytes]]:
    """What a process may write to of its memory, as it is now, with a name for each part; of one's own processes."""
    root = Path(f"/proc/{process}")
    with (root / "mem").open("rb", buffering=0) as file:
        for line in (root / "maps").read_text().splitlines():
            place, rights, *more = line.split(maxsplit=5)
            first, last = (int(end, 16) for end in place.split("-"))
            if not rights.startswith("rw") or (len(more) == 4 and more[3].startswith("[v")):
                continue
            file.seek(first)
            try:
                yield f"memory at {place}", file.read(last - first)
            except OSError:  # it is gone, or of a device
                continue


def _table(rows: Any) -> np.ndarray:
    found = np.array(rows, np.float64)
    found = found.reshape(len(found), -1)
    found[~np.isfinite(found).all(1)] = 0  # blanks, in the place of what others have
    return found


def _forms(rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Samples in each form that is looked for."""
    with np.errstate(over="ignore"):
        for kind in (np.float64, np.float32, np.float16):
            yield np.dtype(kind).name, rows.astype(kind)
        wide = rows.astype(np.float32).view(np.uint32)
    yield "bfloat16", ((wide + 0x7FFF + (wide >> 16 & 1)) >> 16).astype(np.uint16)
    if (rows == rows.round()).all():
        for whole in (np.int64, np.int32, np.int16, np.uint8):
            if np.iinfo(whole).min <= rows.min(initial=0) and rows.max(initial=0) <= np.iinfo(whole).max:
                yield np.dtype(whole).name, rows.astype(whole)
    for how, axis in (("quantised", None), ("quantised by row", 1)):
        low, high = rows.min(axis, keepdims=True, initial=0), rows.max(axis, keepdims=True, initial=0)
        yield how, ((rows - low) * (255 / np.where(high > low, high - low, 1))).round().astype(np.uint8)


def _pieces(values: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Runs of values of each row, side by side, that differ enough from one another to tell whose they are."""
    size = min(size, values.shape[1])
    starts = sorted({*range(0, values.shape[1] - size + 1, size), values.shape[1] - size})
    for row, line in enumerate(values):
        for start in starts:
            if len(np.unique(piece := line[start : start + size])) >= min(DISTINCT, size):
                yield row, piece


def _runs(values: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """The same as bytes."""
    size = RUN if values.itemsize > 1 else RUN * 3 // 2
    for row, piece in _pieces(values, size):
        if len(part := piece.tobytes()) >= 12:
            yield row, part


def _key(values: np.ndarray) -> bytes:
    """The same for values that differ by what is lost where they are written with a few decimals."""
    with np.errstate(over="ignore"):
        return (values.round(3) + 0.0).astype(np.float32).tobytes()


def _hash(words: np.ndarray) -> np.ndarray:
    return (words * MIX) >> np.uint64(64 - BITS)


def _unpacked(content: bytes) -> Iterator[tuple[str, bytes]]:
    """What is packed in some bytes, by its kind, all of a kind together."""
    streams = b"\0".join(_inflated(memoryview(content)[one.start() :], one[0]) for one in PACKED.finditer(content))
    if len(streams) > RUN:
        yield "a compressed stream", streams
    coded = []
    for one in BASE64.finditer(content):
        text = one[0].replace(b"-", b"+").replace(b"_", b"/")
        for shift in range(4):  # where it begins is not known
            part = text[shift:]
            part = part[:-1] if len(part) % 4 == 1 else part  # one letter more says nothing
            coded.append(binascii.a2b_base64(part + b"=" * (-len(part) % 4)))
    if coded:
        yield "base64", b"\0".join(coded)
    if digits := [binascii.unhexlify(one[0][: len(one[0]) // 2 * 2]) for one in HEX.finditer(content)]:
        yield "hexadecimal digits", b"\0".join(digits)


def _inflated(content: memoryview, head: bytes) -> bytes:
    """What a stream holds, as far as it can be read: up to the byte that is none of its own."""
    reader, found, size = _reader(head), list[bytes](), 0
    for start in range(0, len(content), PIECE):
        try:
            found.append(reader.decompress(content[start : start + PIECE]))
        except BROKEN:
            return b"".join([*found, *_to_the_end(content, start, head)])
        size += len(found[-1])
        if reader.eof or size > MOST:
            break
    return b"".join(found)


def _to_the_end(content: memoryview, start: int, head: bytes) -> Iterator[bytes]:
    """Of a piece that is broken, what stands before that."""
    reader = _reader(head)
    reader.decompress(content[:start])
    with suppress(*BROKEN):
        for at in range(start, start + PIECE):
            yield reader.decompress(content[at : at + 1])


def _reader(head: bytes) -> Any:
    if head[:1] in b"\x78\x1f":
        return zlib.decompressobj(15 + 32)
    return bz2.BZ2Decompressor() if head.startswith(b"BZ") else lzma.LZMADecompressor()
