"""Reasoning and answers as losses of their own, as anyone would write it, over plain transformers. Imports nothing of
kdmesh."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from plain_rollouts import Learned, Plain
from torch import Tensor


@dataclass(frozen=True)
class Lesson:
    """One loss: over which part of a text, how much it counts, and by whom; None: by the text's own tokens."""

    part: str
    weight: float
    teacher: Any = None


@dataclass
class Parted(Plain):
    """A student that learns the parts of texts by lessons of their own."""

    marks: tuple[str, str] = ("", "")
    words: Any = None  # the tokenizer
    lessons: list[Lesson] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # tokens of reasoning and of answers, by update

    def reasoning(self, ids: list[int]) -> list[bool]:
        """Of each token of an answer, whether it stands before the end of the last end mark.

        Where there is none: all do if it begins with the first mark, and none else.
        """
        (begin, end), said, last = self.marks, "", 0
        for place, token in enumerate(ids):
            word = self.words.decode([token], skip_special_tokens=True)
            said += word
            last = place + 1 if word and said.endswith(end) else last
        if end not in said and begin and said.startswith(begin):
            last = len(ids)
        return [place < last for place in range(len(ids))]

    def update(self, optimizer: torch.optim.Optimizer, texts: list[Learned], rows: list[int]) -> None:
        """One step on one batch."""
        self.step(optimizer, [(texts, self.lessons)])

    def step(self, optimizer: torch.optim.Optimizer, taught: list[tuple[list[Learned], list[Lesson]]]) -> None:
        """One step on the sum of all lessons on batches of texts; a batch without any adds nothing."""
        optimizer.zero_grad()
        total = torch.zeros(())
        for texts, lessons in taught:
            for loss in self.parts(texts, lessons) if texts else ():
                total = total + loss
        if any(texts for texts, _ in taught):
            total.backward()
            optimizer.step()

    def parts(self, texts: list[Learned], lessons: list[Lesson]) -> list[Tensor]:
        """The loss of each lesson, weighed: the mean over its part's tokens, 0 without any."""
        answers, found = self.answers(self.student, texts), []
        tokens = torch.tensor([token for ids, asked in texts for token in ids[asked:]])
        first = torch.tensor([one for ids, asked in texts for one in self.reasoning(ids[asked:])])
        self.sizes.append((int(first.sum()), int((~first).sum())))
        for lesson in lessons:
            inside = first if lesson.part == "reasoning" else ~first
            losses = self.losses(answers, tokens, texts, lesson.teacher)
            factors = inside.double() * len(inside) / max(1, int(inside.sum()))  # so it rounds as kdmesh does
            mean = (losses * factors.float()).sum() / len(inside)
            plain = losses[inside].mean() if inside.any() else torch.zeros(())
            assert abs(mean.item() - plain.item()) <= 1e-6 * plain.item(), "it is the mean over the part"
            found.append(lesson.weight * mean)
        return found

    def losses(self, answers: Tensor, tokens: Tensor, texts: list[Learned], teacher: Any) -> Tensor:
        """Of each token: how unlikely it is, or the reverse KL to what a teacher says there."""
        if teacher is None:
            return torch.nn.functional.cross_entropy(answers, tokens, reduction="none")
        with torch.no_grad():
            other = self.answers(teacher, texts).log_softmax(-1)
        own = answers.log_softmax(-1)
        return (own.exp() * (own - other)).sum(-1)
