"""Pairs of what several agents write, and DPO on them, as anyone would write it. Imports nothing of kdmesh.

Noise and orders are what kdmesh's docs/architecture.md says of them: keyed by seeds and names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from plain_pairs import Answer, Plain
from plain_rollouts import key, one_of

Said = dict[str, list[int]]
"""What the streams say to one prompt, in tokens."""


@dataclass
class Argued(Plain):
    """A student, its reference, and agents by name, the student among them, that write, step by step.

    ``turns``: the streams in the order in which they are written: by whom, and which others each asks about; ``choose``
    makes a pair of what was said to a prompt, or a reason why there is none; ``encode``: words to tokens.
    """

    nets: dict[str, Any] = field(default_factory=dict)
    questions: dict[int, str] = field(default_factory=dict)
    turns: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    choose: Callable[[int, dict[str, str]], tuple[str, str] | str] = lambda row, words: ""
    words: Any = None
    new: dict[str, int] = field(default_factory=dict)  # tokens at most, by agent
    made: list[tuple[str, str] | str] = field(default_factory=list)  # of each prompt, in order

    def argue(self, epochs: int, make: Callable[[Any], torch.optim.Optimizer]) -> None:
        """Write, choose, learn."""
        optimizer, rows, step = make(self.student.parameters()), sorted(self.questions), 0
        for epoch in range(epochs):
            drawn = torch.Generator().manual_seed(key(self.seed, "order", "train", "", epoch))
            order = [rows[at] for at in torch.randperm(len(rows), generator=drawn).tolist()]
            for start in range(0, len(order), self.size):
                self.learn(optimizer, order[start : start + self.size], step)
                step += 1

    def learn(self, optimizer: torch.optim.Optimizer, batch: list[int], step: int) -> None:
        """One step."""
        self.student.eval()
        said = [self.write(row, step) for row in batch]
        self.student.train()
        self.pairs = {}
        for row, texts in zip(batch, said, strict=True):
            found = self.choose(row, {name: self.text(ids) for name, ids in texts.items()})
            self.made.append(found)
            if isinstance(found, tuple):
                chosen, rejected = (self.after(self.questions[row], texts[name]) for name in found)
                self.pairs[row] = (chosen, rejected)
        if self.pairs:
            optimizer.zero_grad()
            self.loss_of([row for row in batch if row in self.pairs]).backward()
            optimizer.step()

    def alone(self, row: int) -> torch.Tensor:
        """What the reference says of a batch that was just written: in one shape, as it is."""
        if row != next(iter(self.pairs)):
            return torch.empty(0, self.other.config.hidden_size)
        texts = [answer for pair in self.pairs.values() for answer in pair]
        return self.hidden(self.other, texts, max(len(ids) for ids, _ in texts))

    @torch.no_grad()
    def write(self, row: int, step: int) -> Said:
        """Every stream's text to a prompt."""
        found: Said = {}
        for name, (agent, heard) in self.turns.items():
            asked = "=".join([*(self.text(found[other]) for other in heard), self.questions[row]])
            noise = torch.Generator().manual_seed(key(self.seed, "written", name, agent, row, 0, "main", step))
            found[name] = self.drawn(self.nets[agent], self.after(asked, [])[0], noise, self.new[agent])
        return found

    def drawn(self, net: Any, prompt: list[int], noise: torch.Generator, new: int) -> list[int]:
        """Token by token, without a cache."""
        text: list[int] = []
        while len(text) < new and (not text or text[-1] != 2):
            shares = net(torch.tensor([prompt + text]), use_cache=False).logits[0, -1].softmax(-1)
            text.append(one_of(shares, noise))
        return text

    def text(self, ids: list[int]) -> str:
        """Its words."""
        return str(self.words.decode(ids, skip_special_tokens=True))

    def after(self, question: str, ids: list[int]) -> Answer:
        """An answer after a prompt."""
        asked = [1, *self.words(question)["input_ids"]]
        return [*asked, *ids], len(asked)


def right_over_wrong(
    streams: list[str], known: dict[int, str]
) -> Callable[[int, dict[str, str]], tuple[str, str] | str]:
    """The first whose first digit is the known one over the first with another one."""

    def choose(row: int, words: dict[str, str]) -> tuple[str, str] | str:
        digits = {name: re.findall("[0-9]", words[name])[:1] for name in streams}
        said = {name: one[0] for name, one in digits.items() if one}
        right = [name for name, one in said.items() if one == known[row]]
        wrong = [name for name, one in said.items() if one != known[row]]
        if not said:
            return "no answer"
        return "all wrong" if not right else "all right" if not wrong else (right[0], wrong[0])

    return choose


def judged(first: str, second: str, orders: tuple[str, str]) -> Callable[[int, dict[str, str]], tuple[str, str] | str]:
    """Which of two a judge names in both orders: 0 what it was shown first, 1 what it was shown second."""

    def choose(row: int, words: dict[str, str]) -> tuple[str, str] | str:
        last = [re.findall("[01]", words[name])[-1:] for name in orders]
        named = [shown[int(one[0])] for one, shown in zip(last, [(first, second), (second, first)], strict=True) if one]
        if not named:
            return "no verdict"
        if len({words[name] for name in named}) == 2:
            return "verdicts differ"
        if len(named) == 1:
            return "too few verdicts"
        if words[first] == words[second]:
            return "equal answers"
        return named[0], ({first, second} - {named[0]}).pop()

    return choose


def declared(chosen: str, rejected: str) -> Callable[[int, dict[str, str]], tuple[str, str] | str]:
    """One over the other, whatever they say."""

    def choose(row: int, words: dict[str, str]) -> tuple[str, str] | str:
        if not words[chosen]:
            return "nothing to choose"
        return (chosen, rejected) if words[chosen] != words[rejected] else "equal answers"

    return choose
