"""A text with its personal parts replaced, and where everything else then stands."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kdmesh.privacy.keys import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kdmesh.personal.entities import Part

SHOWN = 8
"""Hexadecimal digits of a pseudonym."""
GROUPED = frozenset(
    {"CREDIT_CARD", "IBAN", "MAC_ADDRESS", "PHONE", "UK_NHS", "US_BANK_NUMBER", "US_NPI", "US_SSN", "VIN"}
)
"""Kinds whose values are the same however their letters and digits are parted; in others a mark may tell two apart."""
Tag = tuple[int, int, str]


class Replacing(Protocol):
    """Says what stands in the place of a personal part."""

    def __call__(self, kind: str, value: str) -> str:
        """What is written for a value of a kind; it is not empty."""


def redacted(kind: str, value: str) -> str:
    """The kind in brackets: `[EMAIL]`."""
    return f"[{kind}]"


class Pseudonyms:
    """The kind with a name that is the same wherever the value is, and that nobody without the key can make.

    Values are equal but for case, width and blanks; of kinds that are written in groups, where their letters and digits
    are: `+1 202-555-0100` and `+12025550100` have one name, `1.12.1.1` and `11.2.1.1` two. Of 2^32 names two values may
    share one by chance, of 10,000 values with a probability of about 1%.
    """

    def __init__(self, path: Path) -> None:
        """``path``: the key's file."""
        self._path, self._secret = path, load(path)

    def __reduce__(self) -> tuple[type[Pseudonyms], tuple[Path]]:
        """In another process it reads the file again: a secret does not travel."""
        return Pseudonyms, (self._path,)

    def __call__(self, kind: str, value: str) -> str:
        """`[EMAIL-3fa29c01]`."""
        same = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
        shown = "".join(one for one in same if unicodedata.category(one) != "Cf")  # no joiners, no soft hyphens
        plain = "".join(filter(str.isalnum, shown)) if kind in GROUPED else " ".join(shown.split())
        written = (plain or value).encode("utf-8", "surrogatepass")
        return f"[{kind}-{self._secret.tag(written, 'pseudonym', kind)[:SHOWN]}]"


class Changed(NamedTuple):
    """A text with parts replaced. ``starts``, ``ends``: of these before; ``new``: where each begins and ends now."""

    text: str
    starts: list[int]
    ends: list[int]
    new: list[tuple[int, int]]

    def tags(self, tags: Sequence[Tag]) -> tuple[Tag, ...]:
        """Tags of parts of the text, moved to where these are now.

        One that reaches into a replaced part covers all that stands in its place. Of two that then would overlap the
        first keeps it; one of which nothing is left goes.
        """
        found: list[Tag] = []
        for start, end, name in tags:
            begins, ends = self._start(start), self._end(end)
            begins = max(begins, found[-1][1]) if found else begins
            if begins < ends:
                found.append((begins, ends, name))
        return tuple(found)

    def _start(self, at: int) -> int:
        place = bisect_right(self.starts, at) - 1
        if place < 0:
            return at
        begins, ends = self.new[place]
        return begins if at < self.ends[place] else ends + at - self.ends[place]

    def _end(self, at: int) -> int:
        place = bisect_right(self.starts, at - 1) - 1
        if place < 0:
            return at
        ends = self.new[place][1]
        return ends if at <= self.ends[place] else ends + at - self.ends[place]


def changed(text: str, parts: Sequence[Part], replacing: Replacing) -> Changed:
    """Replace parts of a text, which do not overlap and are in order."""
    pieces, new, at, size = [], [], 0, 0
    for part in parts:
        told = replacing(part.kind, text[part.start : part.end])
        pieces += [text[at : part.start], told]
        size += part.start - at
        new.append((size, size + len(told)))
        size += len(told)
        at = part.end
    pieces.append(text[at:])
    return Changed("".join(pieces), [one.start for one in parts], [one.end for one in parts], new)
