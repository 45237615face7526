"""What recognisers by patterns have in common: expressions that find candidates, and a check that each must pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kdmesh.contracts.recogniser import Entity, Recogniser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ByPattern(Recogniser):
    """Finds what its patterns match and :meth:`is_one` takes, from left to right.

    Attributes:
        kind: what is found.
        patterns: each tried on the whole text. A group `one`, if there is one, is what counts; the rest is around it.
        hint: characters of which a text without any holds none; "": it may.
    """

    kind: ClassVar[str]
    patterns: ClassVar[tuple[re.Pattern[str], ...]]
    hint: ClassVar[str] = ""

    def is_one(self, found: str) -> bool:
        """Whether what a pattern matched is what is sought: by a checksum, or what numbers there are."""
        return True

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """What the patterns match in each text."""
        return [list(self._in(text)) for text in texts]

    def _in(self, text: str) -> Iterator[Entity]:
        if self.hint and not any(one in text for one in self.hint):
            return
        for pattern in self.patterns:
            group = "one" if "one" in pattern.groupindex else 0
            for match in pattern.finditer(text):
                if self.is_one(match[group]):
                    yield Entity(*match.span(group), self.kind)


def digits(text: str) -> list[int]:
    """Its digits, in order."""
    return [int(one) for one in text if one in "0123456789"]


def luhn(numbers: Sequence[int]) -> bool:
    """Whether the last of these is the check digit of the others: ISO/IEC 7812-1, Annex B."""
    doubled = [2 * one - 9 * (2 * one > 9) for one in numbers[-2::-2]]
    return (sum(doubled) + sum(numbers[-1::-2])) % 10 == 0
