"""Pairs of what several said: a right answer over a wrong one, as after a debate.

After Pang, Yuan, Cho, He, Sukhbaatar and Weston, "Iterative Reasoning Preference Optimization", 2024, who pair answers
of one model; here they are of any agents, in any round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.filters import Answer, Choice, TextRule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kdmesh.filters import Candidate, WrittenText

RIGHT, WRONG, SILENT, UNKNOWN = "all right", "all wrong", "no answer", "no right answer known"


class RightOverWrong(TextRule):
    """Chooses the first text whose answer is right, and rejects the first whose answer is wrong.

    What is right is told as by the filter `answer`: what ``pattern`` finds in a text equals that in a ``column``, None:
    in what the data answer; ``numeric``: as numbers. A text without an answer is in no pair, and is counted, or, with
    ``silent: wrong``, is wrong. It abstains where all that answer are right, or wrong, where none answers, and where
    the column is empty.
    """

    def __init__(self, pattern: str | None, column: str | None, numeric: bool, silent: str) -> None:
        self.answer, self.silent = Answer(pattern, column, numeric), silent

    def setup(self, columns: Collection[str], sources: Sequence[str], read: Collection[str]) -> None:
        """Refuse a column that the data have not."""
        self.answer.setup(columns)

    def choose(self, texts: Sequence[Candidate], read: Mapping[str, Sequence[WrittenText]]) -> Choice:
        """By the answers."""
        said, truth = [self.answer.said(one.text) for one in texts], self.answer.truth(texts[0].text)
        told = {"answers": [None if one is None else Answer.plain(one) for one in said]}
        lost = [f"no answer in {one.stream}" for one, answer in zip(texts, said, strict=True) if answer is None]
        if truth is None:
            return Choice(None, UNKNOWN, told, lost)
        right = [at for at, answer in enumerate(said) if answer == truth]
        answered = [at for at, answer in enumerate(said) if answer is not None or self.silent == "wrong"]
        wrong = [at for at in answered if at not in right]
        if right and wrong:
            return Choice(right[0], "", told, lost, rejected=wrong[0])
        return Choice(None, RIGHT if right else WRONG if wrong else SILENT, told, lost)
