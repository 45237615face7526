"""A vote on the answers in texts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.text_rule import Choice, TextRule
from kdmesh.text import answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.contracts.text_rule import Candidate

NONE, TIE, FEW, ALL = "no answer", "a tie", "too few agree", "no dissent"


class Vote(TextRule):
    """Chooses the first text with the answer that the most texts give (Wang et al., "Self-Consistency Improves Chain of
    Thought Reasoning in Language Models", 2023).

    The answer is what ``pattern`` finds, by default the whole text; with ``numeric`` its last number. A text without an
    answer votes for none, and counts. It abstains where no text has an answer, where fewer than ``share`` of all texts
    give the most frequent one, and, with ``ties: abstain``, where another is as frequent; with ``ties: first`` the one
    that came first wins then. Whose text has no answer is counted; a text that is missing counts in ``share`` alone.
    Rejected is the first text with another answer, and of a tie none: nobody has won it. Of a debate that is after
    Samanta et al., "Internalizing Self-Consistency in Language Models: Multi-Agent Consensus Alignment" (MACA), 2025,
    whose debaters are copies of one model.
    """

    def __init__(self, pattern: str | None, numeric: bool, share: float, ties: str) -> None:
        self.pattern = None if pattern is None else answers.pattern(pattern)
        self.numeric, self.share, self.ties = numeric, share, ties

    def choose(self, texts: Sequence[Candidate], read: Mapping[str, Sequence[WrittenText]]) -> Choice:
        """By the answers."""
        said = [self._answer(one.text.answer) for one in texts]
        votes = Counter(answer for answer in said if answer is not None)  # in the order in which they came
        count = max(len(texts), texts[0].of)
        told: dict[str, Any] = {"votes": dict(votes), "answers": said, "texts": count, "silent": said.count(None)}
        lost = [f"no answer in {one.stream}" for one, answer in zip(texts, said, strict=True) if answer is None]
        if not votes:
            return Choice(None, NONE, told, lost)
        most = max(votes.values())
        first = [answer for answer, own in votes.items() if own == most]
        told["tied"] = first if len(first) > 1 else []
        if most < self.share * count:
            return Choice(None, FEW, told, lost)
        if len(first) > 1 and self.ties == "abstain":
            return Choice(None, TIE, told, lost)
        told["answer"] = first[0]
        told["dissent"] = [
            {"stream": one.stream, "agent": one.agent, "draw": one.text.draw, "answer": answer}
            for one, answer in zip(texts, said, strict=True)
            if answer != first[0]
        ]
        if len(first) > 1:
            return Choice(said.index(first[0]), TIE, told, [*lost, "ties broken"])
        rejected = next((at for at, answer in enumerate(said) if answer not in (None, first[0])), None)
        return Choice(said.index(first[0]), ALL if rejected is None else "", told, lost, rejected=rejected)

    def _answer(self, text: str) -> str | None:
        """As it is counted: numbers that are equal as one."""
        found = answers.extracted(self.pattern, text)
        if not self.numeric or found is None:
            return found
        number = answers.number(found)
        return None if number is None else answers.plain(number)
