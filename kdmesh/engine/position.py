"""Where a stage stands: numbers from the program's lines down to the step of a phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Paused(Exception):
    """A stage has written its checkpoint and stands still, as it was asked to."""


class Position:
    """A number for every open loop, outermost first. A resumed stage's loops begin where the ``path`` says."""

    def __init__(self, path: Sequence[int] = ()) -> None:
        self.path: list[int] = []
        self._resume = list(path)

    @property
    def within(self) -> bool:
        """Whether the stage was left inside a loop that is not yet open again."""
        return bool(self._resume)

    def enter(self, first: int) -> int:
        """Open a loop, and return where it begins: at ``first``, or where it was left."""
        number = self._resume.pop(0) if self._resume else first
        self.path.append(number)
        return number

    def at(self, number: int) -> None:
        """The innermost loop stands here."""
        self.path[-1] = number

    def leave(self) -> None:
        """Close the innermost loop."""
        self.path.pop()
