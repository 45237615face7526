"""Texts that hold no personal data, as far as recognisers find any. No paper: docs/personal.md says what they miss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter
from kdmesh.text.recognised import finder

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.personal.entities import Finder
    from kdmesh.spec.base import RecogniserRef


class Personal(Filter):
    """Keeps texts in which the recognisers of a ``profile``, and of ``find``, find nothing but what is allowed."""

    _finder: Finder

    def __init__(
        self, profile: str | None, find: list[RecogniserRef], kinds: list[str] | None, allow: list[str]
    ) -> None:
        self._asked = profile, find, kinds, allow

    def setup(self, columns: Collection[str]) -> None:
        """Make the recognisers."""
        self._finder = finder(*self._asked, where="")

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """By what is found in each."""
        return [not parts for parts in self._finder.find([one.text for one in texts])]
