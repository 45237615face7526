"""Texts whose class several agents give too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText


class Confirmed(Filter):
    """Keeps texts to which at least ``votes`` of the agents give the class as which they would be learned; None: all.

    Of texts that a language model writes, those that a classifier of the given ones takes for their class: Anaby-Tavor
    et al., "Do Not Have Enough Data? Deep Learning to the Rescue!", AAAI 2020, who rank them by its confidence.
    """

    def __init__(self, votes: int | None) -> None:
        self.votes = votes

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """By the agents' answers."""
        return [self._confirmed(one) for one in texts]

    def _confirmed(self, one: WrittenText) -> bool:
        if not one.answers:
            raise ValueError("no agent says a class: name some, {confirmed: {of: [AGENT, OTHER]}}")
        votes = sum(answer == one.label for answer in one.answers.values())
        return votes >= (len(one.answers) if self.votes is None else self.votes)
