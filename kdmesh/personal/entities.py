"""What recognisers found in a text, made into parts that do not overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from kdmesh.contracts.recogniser import Entity, Recogniser

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


class Part(NamedTuple):
    """A part of a text that is personal: from the first character of overlapping entities to the last.

    ``kind``: of the longest of them, of equals the first by name; ``rule``: the recogniser that found that one.
    """

    start: int
    end: int
    kind: str
    rule: str


class Unfit(ValueError):
    """A recogniser gave something else than entities of the texts."""


@dataclass(frozen=True)
class Finder:
    """Several recognisers, by their names.

    ``allow``: texts that are let stand, as one wrote them or in other cases; ``kinds``: only these, None: all.
    """

    recognisers: tuple[tuple[str, Recogniser], ...]
    allow: frozenset[str] = frozenset()
    kinds: frozenset[str] | None = None

    def find(self, texts: Sequence[str]) -> list[list[Part]]:
        """The parts of each text, in order. Unfit where a recogniser gave something else."""
        found: list[list[tuple[Entity, str]]] = [[] for _ in texts]
        for name, recogniser in self.recognisers:
            for place, own in enumerate(checked(recogniser.find(texts), texts, name)):
                found[place] += [(one, name) for one in own]
        return [joined(self._meant(text, own)) for text, own in zip(texts, found, strict=True)]

    def _meant(self, text: str, found: Iterable[tuple[Entity, str]]) -> list[tuple[Entity, str]]:
        return [
            (one, name)
            for one, name in found
            if (self.kinds is None or one.kind in self.kinds) and text[one.start : one.end].casefold() not in self.allow
        ]


def checked(found: object, texts: Sequence[str], name: str) -> list[list[Entity]]:
    """What a recogniser gave, as entities; Unfit where it is something else."""
    if not isinstance(found, list) or len(found) != len(texts):
        raise Unfit(f"{name} gave no list for each of {len(texts)} texts")
    made = []
    for text, own in zip(texts, found, strict=True):
        if not isinstance(own, list | tuple):
            raise Unfit(f"{name} gave {type(own).__name__} in place of a list of entities")
        made.append([_entity(one, len(text), name) for one in own])
    return made


def _entity(found: object, length: int, name: str) -> Entity:
    match found:
        case (int(start), int(end), str(kind)) if 0 <= start < end <= length and kind:
            return Entity(int(start), int(end), kind)
    raise Unfit(f"{name} gave {found!r:.60}, and the text has {length} characters: (start, end, kind) is wanted")


def joined(found: Collection[tuple[Entity, str]]) -> list[Part]:
    """Entities as parts that do not overlap, in order: what overlaps is one, so that nothing of either is left."""
    made: list[Part] = []
    longest = 0
    for one, name in sorted(found, key=lambda pair: (pair[0].start, -pair[0].end, pair[0].kind, pair[1])):
        size = one.end - one.start
        if made and one.start < made[-1].end:
            last = made[-1]
            kind, rule = (one.kind, name) if size > longest else (last.kind, last.rule)
            made[-1] = Part(last.start, max(last.end, one.end), kind, rule)
            longest = max(longest, size)
        else:
            made.append(Part(one.start, one.end, one.kind, name))
            longest = size
    return made
