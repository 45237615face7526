"""What recognisers by patterns have in common: expressions that find candidates, and a check that each must pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kdmesh.contracts.recogniser import Entity, Recogniser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DIGITS = {first + one: ord("0") + one for first in (0x660, 0x6F0, 0x966) for one in range(10)}  # Arabic, Devanagari
WIDE = {one: one - 0xFEE0 for one in range(0xFF01, 0xFF5F)}
BLANKS = dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], ord(" "))
HYPHENS = dict.fromkeys([0x2010, 0x2011, 0x2012, 0x2013, 0x2212], ord("-"))
PLAIN = {**DIGITS, **WIDE, **BLANKS, **HYPHENS}
"""Characters that stand for one of ASCII, as word processors and other scripts write it."""
GROUP = re.compile("[^ -]+")
UNSEEN = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]+")
"""Characters that show nothing: soft hyphens, joiners, and blanks of no width."""


class ByPattern(Recogniser):
    """Finds what its patterns match and :meth:`is_one` takes, from left to right.

    Digits, marks, blanks and hyphens of other scripts and widths are read as those of ASCII. A text with characters
    that show nothing is looked at as it is, and without them.

    Attributes:
        kind: what is found.
        patterns: each tried on the whole text. A group `one`, if there is one, is what counts; the rest is around it.
        hint: characters of which a text without any holds none; "": it may.
        grouped: a match may have taken groups beside it that are not its own, as the date after a card's number:
            where the whole is none, the longest runs of groups that are one count, in which all groups but the last
            have at least so many characters (columns of short numbers have too many runs); 0: none do.
    """

    kind: ClassVar[str]
    patterns: ClassVar[tuple[re.Pattern[str], ...]]
    hint: ClassVar[str] = ""
    grouped: ClassVar[int] = 0

    def is_one(self, found: str) -> bool:
        """Whether what a pattern matched is what is sought: by a checksum, or what numbers there are."""
        return True

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """What the patterns match in each text."""
        return [self._in(text) for text in texts]

    def _in(self, text: str) -> list[Entity]:
        if text.isascii():
            return [*self._matched(text)]
        text = text.translate(PLAIN)
        found = dict.fromkeys(self._matched(text))
        if UNSEEN.search(text):
            seen = [at for at, one in enumerate(text) if not UNSEEN.match(one)]
            for start, end, kind in self._matched(UNSEEN.sub("", text)):
                found[Entity(seen[start], seen[end - 1] + 1, kind)] = None
        return sorted(found)

    def _matched(self, text: str) -> Iterator[Entity]:
        if self.hint and not any(one in text for one in self.hint):
            return
        for pattern in self.patterns:
            group = "one" if "one" in pattern.groupindex else 0
            for match in pattern.finditer(text):
                if self.is_one(match[group]):
                    yield Entity(*match.span(group), self.kind)
                elif self.grouped:
                    start = match.start(group)
                    groups = [(start + one.start(), start + one.end()) for one in GROUP.finditer(match[group])]
                    yield from self._among(text, groups)

    def _among(self, text: str, groups: list[tuple[int, int]]) -> Iterator[Entity]:
        """What is one among the groups of a match that as a whole is none: the longest runs of them."""
        for size in range(len(groups), 0, -1):
            for first in range(len(groups) - size + 1):
                start, end = groups[first][0], groups[first + size - 1][1]
                long = all(until - at >= self.grouped for at, until in groups[first : first + size - 1])
                if long and self.is_one(text[start:end]):
                    yield from self._among(text, groups[:first])
                    yield Entity(start, end, self.kind)
                    yield from self._among(text, groups[first + size :])
                    return


def digits(text: str) -> list[int]:
    """Its digits, in order."""
    return [int(one) for one in text if one in "0123456789"]


def luhn(numbers: Sequence[int]) -> bool:
    """Whether the last of these is the check digit of the others: ISO/IEC 7812-1, Annex B."""
    doubled = [2 * one - 9 * (2 * one > 9) for one in numbers[-2::-2]]
    return (sum(doubled) + sum(numbers[-1::-2])) % 10 == 0
