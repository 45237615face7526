"""What a regular expression of the user's own matches: numbers of a hospital's records, of a company's customers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.recogniser import Entity, Recogniser
from kdmesh.text.answers import pattern

if TYPE_CHECKING:
    from collections.abc import Sequence


class Pattern(Recogniser):
    """Finds every match of ``match`` that is not empty, as ``kind``."""

    def __init__(self, match: str, kind: str, ignore_case: bool) -> None:
        self._pattern, self._kind = pattern(f"(?i:{match})" if ignore_case else match), kind

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """Every match."""
        return [
            [Entity(*found.span(), self._kind) for found in self._pattern.finditer(text) if found[0]] for text in texts
        ]
