"""Texts on whose answer several of a prompt agree."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kdmesh.contracts.filter import Filter
from kdmesh.text import answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText


class Agreement(Filter):
    """Keeps texts with the answer that the most texts of their prompt give, where at least a ``share`` of them do.

    It is self-consistency as a filter (Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language
    Models", 2023). The answer is what ``pattern`` finds, by default the whole text; with ``numeric`` its last number.
    A text without an answer agrees with none, and counts. Where two answers are given equally often, and more often
    than any other, none of the prompt is kept.
    """

    def __init__(self, pattern: str | None, share: float, numeric: bool) -> None:
        self.pattern = None if pattern is None else answers.pattern(pattern)
        self.share, self.numeric = share, numeric

    def keep(self, texts: Sequence[WrittenText]) -> list[bool]:
        """By the answers to each prompt."""
        said = [self._answer(one.answer) for one in texts]
        of: dict[int, list[object]] = {}
        for one, answer in zip(texts, said, strict=True):
            of.setdefault(one.sample, []).append(answer)
        best = {sample: self._agreed(each) for sample, each in of.items()}
        return [answer is not None and answer == best[one.sample] for one, answer in zip(texts, said, strict=True)]

    def _answer(self, text: str) -> object:
        found = answers.extracted(self.pattern, text)
        return answers.number(found) if self.numeric and found is not None else found

    def _agreed(self, said: list[object]) -> object:
        """What the most say, None where too few do, or as many say something else."""
        first = Counter(one for one in said if one is not None).most_common(2)
        if not first or (len(first) == 2 and first[0][1] == first[1][1]):
            return None
        return first[0][0] if first[0][1] >= self.share * len(said) else None
