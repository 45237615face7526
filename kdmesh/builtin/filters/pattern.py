"""Texts in which a regular expression is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter
from kdmesh.text.answers import pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText


class Pattern(Filter):
    """Keeps texts in which ``match`` is found anywhere, and ``without`` nowhere."""

    def __init__(self, match: str | None, without: str | None) -> None:
        self.match = None if match is None else pattern(match)
        self.without = None if without is None else pattern(without)

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """By what is found."""
        return [
            (self.match is None or bool(self.match.search(one.text)))
            and (self.without is None or not self.without.search(one.text))
            for one in texts
        ]
