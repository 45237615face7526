"""Pairs in an order that is declared: what some agents say over what another does, teachers over their student, say.

After Chen, Deng, Yuan, Ji and Gu, "Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models",
2024, who choose the data's answers over the student's own. This rule chooses among what agents write, and the data's
answers are none of that: SPIN itself is a file of pairs made beforehand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.filters import Choice, TextRule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kdmesh.filters import Candidate, WrittenText


class Declared(TextRule):
    """Chooses the text of the first stream in ``chosen`` that says something, and rejects that of ``rejected``.

    It abstains where none of those that would be chosen says anything, and rejects none where that stream has no text.
    """

    def __init__(self, chosen: list[str], rejected: str) -> None:
        self.chosen, self.rejected = chosen, rejected

    def setup(self, columns: Collection[str], sources: Sequence[str], read: Collection[str]) -> None:
        """Refuse streams that are not there, and those of which nothing is said."""
        named, there = [*self.chosen, self.rejected], ", ".join(dict.fromkeys(sources))
        for where, names in (("chosen", self.chosen), ("rejected", [self.rejected])):
            for name in names:
                if name not in sources:
                    what = f"{name!r} is none of the streams whose texts these are"
                    raise MeshError(what, where=where, instead=nearest(name, {*sources}, "streams"))
        for at, name in enumerate(sources):
            if name not in named:
                what, instead = f"texts of {name!r} are neither chosen nor rejected", f"chosen: a list, of {there}"
                raise MeshError(what, where="chosen", instead=f"{instead}; or `consensus_of` without {name}")
            if name in sources[:at]:
                what = f"{name!r} has several texts to a prompt, and the first alone would be looked at"
                raise MeshError(what, where="chosen" if name in self.chosen else "rejected", instead="samples: 1 there")

    def choose(self, texts: Sequence[Candidate], read: Mapping[str, Sequence[WrittenText]]) -> Choice:
        """By their streams."""
        of = {one.stream: at for at, one in enumerate(texts)}
        said = [of[name] for name in self.chosen if name in of and texts[of[name]].text.text]
        if not said:
            return Choice(None, "nothing to choose")
        rejected = of.get(self.rejected)
        return Choice(said[0], "nothing to reject" if rejected is None else "", rejected=rejected)
