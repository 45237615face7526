"""All texts that answer a prompt as one: the transcript of a debate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.text_rule import Choice, TextRule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.contracts.text_rule import Candidate


class Joined(TextRule):
    """Joins the texts, in their order, with ``between`` between them.

    It abstains where the last is empty, or missing, as where a rule that closes a debate abstained. Other empty texts
    are left out.
    """

    def __init__(self, between: str) -> None:
        self.between, self.last = between, ""

    def setup(self, columns: Collection[str], sources: Sequence[str], read: Collection[str]) -> None:
        """Which stream is the last."""
        self.last = sources[-1]

    def choose(self, texts: Sequence[Candidate], read: Mapping[str, Sequence[WrittenText]]) -> Choice:
        """All of them, as said last."""
        told = {"streams": [one.stream for one in texts]}
        if not texts[-1].text.text or self.last not in ("", texts[-1].stream):
            return Choice(None, "no last text", told)
        said = self.between.join(one.text.text for one in texts if one.text.text)
        return Choice(len(texts) - 1, told=told, text=said)
