"""Group-normalised policy gradient as anyone would write it, over plain transformers. Imports nothing of kdmesh."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from plain_rollouts import Plain


@dataclass
class Rewarded(Plain):
    """A student that learns from how right its own texts are, and from what frozen teachers say of them."""

    truth: dict[int, str] = field(default_factory=dict)  # what the data answer, by row
    words: Any = None  # the tokenizer
    std: str = "sample"
    average: str = "text"
    length: int = 0
    clip: float = 0.0
    rewards: list[float] = field(default_factory=list)  # of what was written, in order

    def train(self, epochs: int) -> None:
        """Write, see how right it is, learn."""
        optimizer, batches = self.make(self.student.parameters()), list(self.batches(epochs))
        for begin in range(0, len(batches), self.steps):
            window = batches[begin : begin + self.steps]
            asked = [one for batch in window for one in batch]
            texts = self.write(asked, begin)
            rewards = [self.right(row, ids[before:]) for (row, _), (ids, before) in zip(asked, texts, strict=True)]
            self.rewards += rewards
            likely = self.likely(texts) if self.clip else []
            for batch in window:
                count = len(batch)
                self.step(optimizer, texts[:count], [row for row, _ in batch], rewards[:count], likely[:count])
                texts, rewards, likely = texts[count:], rewards[count:], likely[count:]

    def right(self, row: int, answer: list[int]) -> float:
        """1 for the right number, and a half for any digit below 5."""
        text = self.words.decode(answer, skip_special_tokens=True)
        numbers = re.findall("[0-9]+", text)
        return float(bool(numbers) and int(numbers[-1]) == int(self.truth[row])) + 0.5 * bool(re.search("[0-4]", text))

    @torch.no_grad()
    def likely(self, texts: list[Any]) -> list[torch.Tensor]:
        """The log-probability of each token that was just written, a batch at a time."""
        found: list[torch.Tensor] = []
        for start in range(0, len(texts), self.size):
            part = texts[start : start + self.size]
            tokens = torch.tensor([token for ids, before in part for token in ids[before:]])
            own = (self.answers(self.student, part) / self.temperature).log_softmax(-1)
            found += own.gather(1, tokens[:, None])[:, 0].split([len(ids) - before for ids, before in part])
        return found

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        texts: list[Any],
        rows: list[int],
        rewards: list[float],
        likely: list[torch.Tensor],
    ) -> None:
        """One update, on rewards and on what teachers say."""
        optimizer.zero_grad()
        with torch.no_grad():
            said = [self.answers(teacher, texts) for teacher in self.teachers]
        answers = self.answers(self.student, texts)
        tokens = torch.tensor([token for ids, before in texts for token in ids[before:]])
        sizes = [len(ids) - before for ids, before in texts]
        own = (answers / self.temperature if self.temperature != 1 else answers).log_softmax(-1)
        log_q = own.gather(1, tokens[:, None])[:, 0]
        worth = torch.tensor(
            [a for a, size in zip(self.advantages(rows, rewards), sizes, strict=True) for _ in range(size)]
        )
        if self.clip:
            ratio = (log_q - torch.cat(likely)).exp()
            gain = torch.minimum(ratio * worth, ratio.clamp(1 - self.clip, 1 + self.clip) * worth)
        else:
            gain = worth * log_q
        if self.average == "token":
            total = -gain.sum() / len(tokens)
        else:
            each = [self.length if self.average == "constant" else size for size in sizes for _ in range(size)]
            factors = torch.tensor([len(tokens) / (len(texts) * one) for one in each])
            total = (-gain * factors).sum() / len(tokens)
        for logits in said:
            plain = answers.log_softmax(-1)
            total = total + (plain.exp() * (plain - logits.log_softmax(-1))).sum() / len(tokens)
        total.backward()
        optimizer.step()

    def advantages(self, rows: list[int], rewards: list[float]) -> list[float]:
        """Each reward less its prompt's mean, over the deviation of that prompt's."""
        found = []
        for row, reward in zip(rows, rewards, strict=True):
            group = [other for at, other in zip(rows, rewards, strict=True) if at == row]
            mean = sum(group) / len(group)
            squares = sum((other - mean) ** 2 for other in group)
            spread = (squares / (len(group) - (self.std == "sample"))) ** 0.5 + 1e-4
            apart = 0.0 if len(set(group)) == 1 else reward - mean
            found.append(apart if self.std == "none" else apart / spread)
        return found
