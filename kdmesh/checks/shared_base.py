"""Which agents begin with the same weights as their teachers: traits may pass between such unseen.

Cloud, Le, Chua, Betley, Sztyber-Betley, Hilton, Marks, Evans: Subliminal Learning: Language models transmit behavioral
traits via hidden signals in data, 2025 (arXiv:2507.14805). A student that shares its teacher's initialisation took on
traits of it from data without any trace of them; with another base it did not, and filters did not stop it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

WHY = (
    "what a teacher has beside its task may pass to such a student unseen, and filters of data do not stop it (Cloud "
    "et al., Subliminal Learning, arXiv:2507.14805)"
)


class Shared(NamedTuple):
    """A teacher that began with a student's own initial weights; ``base``: which these are."""

    teacher: str
    base: str


def notes(found: Mapping[str, list[Shared]]) -> list[str]:
    """One line for each base that students share with teachers."""
    pairs = [f"{name} with {one.teacher} ({one.base})" for name, many in found.items() for one in many]
    if not pairs:
        return []
    more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
    return [f"students that begin with their teacher's weights: {', '.join(pairs[:5])}{more}: {WHY}"]
