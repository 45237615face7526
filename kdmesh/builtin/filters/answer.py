"""Texts whose answer is the known one."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter
from kdmesh.errors import MeshError, nearest
from kdmesh.text import answers

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kdmesh.contracts.filter import WrittenText


class Answer(Filter):
    """Keeps texts whose answer, what ``pattern`` finds in them, equals that of a ``column``.

    Of the column the answer is what the pattern finds there, and all of it where it finds nothing. ``column`` None: of
    what the data answer; where texts are classified, the class of the prompt's sample, by its name. ``numeric``: the
    last numbers that both name are compared.
    """

    def __init__(self, pattern: str | None, column: str | None, numeric: bool) -> None:
        self.pattern = None if pattern is None else answers.pattern(pattern)
        self.column, self.numeric = column, numeric

    def setup(self, columns: Collection[str]) -> None:
        """Refuse a column that the data have not."""
        if self.column is not None and self.column not in columns:
            what = f"the data have no column {self.column!r} beside prompt and answer"
            there = nearest(self.column, columns, "columns")
            raise MeshError(what, where="column", instead=f"{there}; without `column` it is what the data answer")

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """By the answers."""
        return [self._right(one) for one in texts]

    def said(self, one: WrittenText) -> object:
        """What a text answers, as it is compared; None where it answers nothing."""
        return self._compared(answers.extracted(self.pattern, one.answer))

    @staticmethod
    def plain(said: object) -> str:
        """An answer as it is told: equal ones as the same words."""
        return answers.plain(said) if isinstance(said, Decimal) else str(said)

    def truth(self, one: WrittenText) -> object:
        """The right answer to its prompt; None where a column does not say it."""
        known = one.known if self.column is None else one.columns[self.column]
        found = answers.extracted(self.pattern, known) or known.strip()
        if not found and self.column is None:
            raise ValueError("the data do not say what the answer is: name a `column` that does")
        return self._compared(found)

    def _right(self, one: WrittenText) -> bool:
        truth = self.truth(one)
        return truth is not None and self.said(one) == truth

    def _compared(self, found: str | None) -> object:
        return (answers.number(found) if self.numeric else found) if found else None
