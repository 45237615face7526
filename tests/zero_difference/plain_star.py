"""STaR as anyone would write it, over plain transformers. Imports nothing of kdmesh."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from plain_rollouts import Learned, Plain


@dataclass
class PlainStar(Plain):
    """One model that answers, is told where it is wrong, and whose base learns what is right.

    ``prompts``, ``told``, ``given``: by row; ``right``: what is right, by row; ``few``: the rows that are explained;
    ``updates``: of each round; ``words``: decodes.
    """

    right: dict[int, int] = field(default_factory=dict)
    few: list[int] = field(default_factory=list)
    updates: int = 0
    words: Any = None
    kept: list[dict[int, list[int]]] = field(default_factory=list)  # by round, what is learned, by row

    def rounds(self, count: int) -> list[Any]:
        """The model of each round, the first of which has learned the few alone."""
        base, found = self.student, []
        for turn in range(count + 1):
            if turn:
                self.kept.append(self.answered(found[-1], turn))
            self.student = copy.deepcopy(base).train()
            self.learned(self.kept[-1] if turn else {}, hinted=turn < count)
            found.append(self.student.eval())
        return found

    def answered(self, net: Any, turn: int) -> dict[int, list[int]]:
        """Of each prompt the first text that is right: asked plainly, then told the solution."""
        found = dict[int, list[int]]()
        before = "s" if turn == 1 else f"s.r{turn - 1}"
        for part, who, prompts in (("own", before, self.prompts), ("hinted", f"{before}.hinted", self.told)):
            for (row, _), text in self.once(net, who, f"star.{turn}.{part}", prompts, self.draws).items():
                numbers = re.findall(r"\d+", self.words.decode(text, skip_special_tokens=True))
                if numbers and int(numbers[-1]) == self.right[row]:
                    found.setdefault(row, text)
        return found

    def learned(self, texts: dict[int, list[int]], hinted: bool) -> None:
        """Train on the few, told the solution too if it is asked so later, and on what it found right."""
        optimizer = self.make(self.student.parameters())
        few, every = self.order("few", self.few), self.order("train", sorted(self.prompts))
        for _ in range(self.updates):
            rows = next(few)
            losses = [self.loss([self.given[row] for row in rows])]
            if hinted:
                losses.append(self.loss(self.asked_with(self.told, [self.given[row] for row in rows], rows)))
            own = [(self.prompts[row] + texts[row], len(self.prompts[row])) for row in next(every) if row in texts]
            if own:
                losses.append(self.loss(own))
            optimizer.zero_grad()
            sum(losses).backward()  # type: ignore[union-attr]  # never empty
            optimizer.step()

    def loss(self, texts: list[Learned]) -> torch.Tensor:
        """Cross-entropy of the tokens of answers."""
        targets = torch.tensor([token for ids, asked in texts for token in ids[asked:]])
        return torch.nn.functional.cross_entropy(self.answers(self.student, texts), targets)
