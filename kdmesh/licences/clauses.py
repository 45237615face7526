"""What licences say of models that learn from others: clauses in their own words, where and when they were read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Purpose = Literal["research", "internal", "commercial", "redistribution"]
"""research: studied, given to nobody, without gain. internal: used within one's own organisation, for its work.
commercial: sold, or part of a product or service that is. redistribution: its weights are given away, without payment.
"""

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
GIVEN: frozenset[Purpose] = frozenset({"commercial", "redistribution"})
"""Purposes for which others are given the student, or what it does."""

Answer = Literal["clear", "depends", "against", "unknown"]
"""What the clauses that were read say of a purpose: none is against it; whether one is depends on what is not known
here; one is against it; or nothing was read of this licence. From best to worst for who asks.
"""

ANSWERS: tuple[Answer, ...] = ("clear", "depends", "unknown", "against")
"""From what lets most to what lets least."""

Kind = Literal["grant", "other models", "competing", "non-commercial", "name", "attribution", "share-alike", "pass on"]
DUTIES: frozenset[Kind] = frozenset({"name", "attribution", "share-alike", "pass on"})
"""Kinds that say what whoever gives a student to others must do, instead of what it may be used for."""


SHORT = 120  # characters of a clause where it is told in brief


def brief(quote: str) -> str:
    """A clause as far as fits in a line or two."""
    return quote if len(quote) <= SHORT else f"{quote[:SHORT].rsplit(' ', 1)[0]} ..."


@dataclass(frozen=True)
class Clause:
    """A clause in its own words.

    ``answers``: what it says of purposes, if not `clear`. ``unless``: whom it spares by its own words, ``family``:
    models that began as one under the same licence, ``kept classifier``: such as sort texts, and are not given away;
    ``language models``: it speaks of these alone, so that whether it speaks of another is not known here. ``begins``:
    how a name must begin, and ``shows``: what must be shown.
    """

    kind: Kind
    section: str
    quote: str
    answers: Mapping[Purpose, Answer] = field(default_factory=dict, hash=False)
    unless: Literal["", "family", "kept classifier"] = ""
    of: Literal["models", "language models"] = "models"
    begins: str = ""
    shows: str = ""

    @property
    def duty(self) -> bool:
        """Whether it says what to do, instead of what for."""
        return self.kind in DUTIES


@dataclass(frozen=True)
class Terms:
    """One licence, or terms of a service, in one version.

    ``address``: of the text that was read, which is its owner's, or a copy of it; ``on``: the day.
    """

    key: str
    name: str
    version: str
    address: str
    on: str
    clauses: tuple[Clause, ...]

    def cited(self, clause: Clause) -> str:
        """Where a clause stands: `Llama 3.1 Community License (July 23, 2024), 1.b.i, https://..., read 2026-12-01`."""
        return f"{self.name} ({self.version}), {clause.section}, {self.address}, read {self.on}"
