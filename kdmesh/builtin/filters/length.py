"""Texts of a bounded length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText


class Length(Filter):
    """Keeps texts of ``min`` to ``max`` tokens; where ``ended``, only those that the writer ended itself."""

    def __init__(self, min: int, max: int | None, ended: bool) -> None:
        self.min, self.max, self.ended = min, max, ended

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """By their tokens."""
        return [
            one.tokens >= self.min and (self.max is None or one.tokens <= self.max) and (one.ended or not self.ended)
            for one in texts
        ]
