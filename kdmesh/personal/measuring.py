"""How much recognisers find of what people, or who made the texts, have marked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kdmesh.personal.entities import Part

Marked = tuple[int, int, str]
"""A part of a text that is marked: first character, the one after the last, and as what."""


@dataclass
class Measured:
    """What was found of what is marked. A part counts as found where any character of it was.

    Attributes:
        marked: by mark, how many parts there are.
        found: how many of these were found.
        parts: by kind, how many parts recognisers found.
        right: how many of these reach into one that is marked.
        clean: texts without a mark; ``flagged``: those of them in which something was found.
    """

    marked: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    clean: int = 0
    flagged: int = 0

    def add(self, found: Iterable[Sequence[Part]], marked: Iterable[Sequence[Marked]]) -> None:
        """Count some texts."""
        for parts, marks in zip(found, marked, strict=True):
            self.clean += not marks
            self.flagged += not marks and bool(parts)
            for start, end, mark in marks:
                self.marked[mark] += 1
                self.found[mark] += any(one.start < end and start < one.end for one in parts)
            for one in parts:
                self.parts[one.kind] += 1
                self.right[one.kind] += any(one.start < end and start < one.end for start, end, _ in marks)

    @property
    def recall(self) -> float | None:
        """Share of what is marked that was found; None where nothing is."""
        return self.found.total() / whole if (whole := self.marked.total()) else None

    @property
    def precision(self) -> float | None:
        """Share of what was found that is marked; None where nothing was."""
        return self.right.total() / whole if (whole := self.parts.total()) else None
