"""Spans of known texts in others.

Carlini et al., "Quantifying Memorization Across Neural Language Models", 2023, call a text memorised where a model goes
on with it word by word.

An index of all runs of ``least`` words finds where a span may begin; from there it is followed word by word.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence

WORD = re.compile(r"\w+|[^\w\s]")


class Span(NamedTuple):
    """A span of ``words`` words that stands in text number ``text`` of the index too; none is of 0 words, in -1."""

    words: int
    text: int
    said: str


class Spans:
    """Texts in which spans are looked for, in small letters or capitals. ``least``: words of the shortest span."""

    def __init__(self, texts: Sequence[str], least: int = 3) -> None:
        if least < 1:
            raise MeshError(f"is {least}", where="least", instead="a number of words, from 1")
        self._least = least
        self._texts = [words(one) for one in texts]
        self._places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
        for number, own in enumerate(self._texts):
            for at in range(len(own) - least + 1):
                self._places[tuple(own[at : at + least])].append((number, at))

    def longest(self, text: str) -> Span:
        """The longest span that ``text`` shares with one of the texts, the first of equally long ones."""
        said, best, where, begin = words(text), 0, -1, 0
        for start in range(len(said) - self._least + 1):
            for number, at in self._places.get(tuple(said[start : start + self._least]), ()):
                length = _alike(said, start, self._texts[number], at)
                if length > best:
                    best, where, begin = length, number, start
        return Span(best, where, " ".join(said[begin : begin + best]))


def words(text: str) -> list[str]:
    """The words of a text, and its marks."""
    return WORD.findall(text.casefold())


def _alike(one: list[str], at: int, other: list[str], there: int) -> int:
    count = 0
    while at + count < len(one) and there + count < len(other) and one[at + count] == other[there + count]:
        count += 1
    return count
