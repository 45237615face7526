"""The interface of a recogniser: it finds personal data in texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Entity(NamedTuple):
    """Personal data in a text.

    Attributes:
        start: its first character.
        end: the one after its last.
        kind: what it is, in capitals: EMAIL, PHONE.
    """

    start: int
    end: int
    kind: str


class Recogniser:
    """Finds personal data. What it says of a text depends on that text and its settings alone."""

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """What each text holds, in any order; entities may overlap. As many lists as there are texts."""
        raise NotImplementedError
