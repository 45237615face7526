"""What a mutant is: a right plugin, one small edit of its text or of its offer, and why that is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from kdmesh.offers import Offer

from .originals import HOME, ORIGINALS, Original


@dataclass(frozen=True)
class Mutant:
    """``of``: the original, `rules.Average`; ``says``: what is wrong; ``edits``: old text and new, in its class.

    ``traits``: what its offer says instead. ``first``: lines that its module begins with, after the imports.
    """

    of: str
    says: str
    edits: tuple[tuple[str, str], ...] = ()
    traits: dict[str, Any] = field(default_factory=dict, hash=False)
    first: str = ""

    @property
    def original(self) -> Original:
        """What it is made of."""
        return ORIGINALS[self.of]

    def text(self, room: str) -> str:
        """The text of its module, of that of the original's. ValueError for an edit that does not fit."""
        thing = self.original.thing
        head, found, rest = next(
            parts for mark in ("class", "def") if (parts := room.partition(f"\n\n\n{mark} {thing}"))[1]
        )
        own, end, after = rest.partition("\n\n\n")
        for old, new in self.edits:
            if own.count(old) != 1:
                raise ValueError(f"{self.of}: {old!r} stands {own.count(old)} times in it")
            own = own.replace(old, new)
        first = f"\n\n{self.first}" if self.first else ""
        return head + first + found + own + end + after

    def offer(self, module: str) -> Offer:
        """What it offers, where its module is called so."""
        traits = {"factory": f"{module}:{self.original.thing}", **self.traits}
        return replace(self.original.offer, **traits)


def edit(of: str, says: str, *texts: str, first: str = "", **traits: Any) -> Mutant:
    """A mutant by texts: old, new, old, new ..."""
    if len(texts) % 2:
        raise ValueError(f"{of}: an old text without a new one")
    return Mutant(of, says, tuple(zip(texts[::2], texts[1::2], strict=True)), traits, first)


__all__ = ["HOME", "Mutant", "edit"]
