"""Texts that say the same: exactly, or nearly, by the runs of words that they share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WORD = re.compile(r"[^\W_]+|[^\w\s]")
WORDS = 5  # words of a run, a shingle
ALIKE = 0.8  # share of runs from which on two texts are near duplicates


def normalised(text: str) -> tuple[str, ...]:
    """A text's words and signs, without case: what stands between them does not count."""
    return tuple(WORD.findall(text.casefold()))


def shingles(words: tuple[str, ...], size: int = WORDS) -> frozenset[tuple[str, ...]]:
    """The runs of so many words in a text; of a shorter one the text itself."""
    return frozenset(words[at : at + size] for at in range(max(1, len(words) - size + 1)))


def resemblance(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Jaccard's coefficient of two sets of runs (Broder, "On the Resemblance and Containment of Documents", 1997)."""
    return len(one & other) / len(one | other)


class Known:
    """Texts that were seen, asked whether a further one says the same as any of them.

    Two texts do where their words are the same, or, where ``near``, where their runs of words resemble one another by
    ``alike`` at least. Texts of fewer words than a run are the same only where all words are.
    """

    def __init__(self, near: bool = True, alike: float = ALIKE) -> None:
        self._near, self._alike = near, alike
        self._exact: set[tuple[str, ...]] = set()
        self._runs: list[frozenset[tuple[str, ...]]] = []
        self._with: dict[tuple[str, ...], list[int]] = {}  # numbers of the texts that have a run

    def add(self, text: str) -> None:
        """See a text."""
        words = normalised(text)
        if not words or words in self._exact:
            return
        self._exact.add(words)
        if self._near:
            runs = shingles(words)
            for run in runs:
                self._with.setdefault(run, []).append(len(self._runs))
            self._runs.append(runs)

    def update(self, texts: Iterable[str]) -> None:
        """See several."""
        for text in texts:
            self.add(text)

    def __contains__(self, text: str) -> bool:
        words = normalised(text)
        if words in self._exact:
            return True
        if not self._near or not words:
            return False
        own, shared = shingles(words), dict[int, int]()
        for run in own:
            for number in self._with.get(run, ()):
                shared[number] = shared.get(number, 0) + 1
        return any(both >= self._alike * (len(own) + len(self._runs[at]) - both) for at, both in shared.items())
