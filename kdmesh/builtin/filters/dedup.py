"""The first of texts that say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter
from kdmesh.text.near import Known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText


class Dedup(Filter):
    """Keeps the first of answers to one prompt that say the same; where ``across``, of those to all prompts.

    They do where their words are the same (``by: exact``), or where their runs of five words resemble one another
    (``by: near``): see :class:`kdmesh.text.near.Known`.
    """

    def __init__(self, by: str, alike: float, across: bool) -> None:
        self.near, self.alike, self.across = by == "near", alike, across

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """In their order."""
        seen: dict[int, Known] = {}
        kept = []
        for one in texts:
            known = seen.setdefault(0 if self.across else one.sample, Known(self.near, self.alike))
            kept.append(one.text not in known)
            known.add(one.text)
        return kept
