"""DPO as anyone would write it, over plain transformers. Imports nothing of kdmesh.

Orders of batches are what kdmesh's docs/architecture.md says of them: keyed by seeds and names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from plain_rollouts import key
from torch import Tensor
from torch.nn import functional as F

Answer = tuple[list[int], int]
"""Tokens of a prompt with an answer, and how many of them are the prompt's."""
SHAPES = (8, 16, 24, 32, 40)


def units(texts: list[Answer], width: int) -> Tensor:
    """The places before each token of an answer, in rows of this width."""
    return torch.tensor(
        [row * width + place for row, (ids, asked) in enumerate(texts) for place in range(asked - 1, len(ids) - 1)]
    )


@dataclass
class Plain:
    """A student, who is frozen beside it, and the two answers of each row of a table."""

    student: Any
    other: Any
    pairs: dict[int, tuple[Answer, Answer]]  # the chosen one first
    pad: int
    seed: int
    size: int
    loss: Callable[[Tensor, Tensor], Tensor]  # of log-probabilities [P, 2] of both: one for each pair
    per_token: bool = False
    accumulate: int = 1

    def batches(self, epochs: int) -> Iterator[list[int]]:
        """Rows of every batch."""
        rows = sorted(self.pairs)
        for epoch in range(epochs):
            drawn = torch.Generator().manual_seed(key(self.seed, "order", "pairs", "", epoch))
            order = torch.randperm(len(rows), generator=drawn).tolist()
            every = [rows[at] for at in order]
            yield from (every[start : start + self.size] for start in range(0, len(every), self.size))

    def train(self, epochs: int, make: Callable[[Any], torch.optim.Optimizer]) -> list[float]:
        """Learn; the losses."""
        optimizer, batches, losses = make(self.student.parameters()), list(self.batches(epochs)), []
        for begin in range(0, len(batches), self.accumulate):
            window = batches[begin : begin + self.accumulate]
            optimizer.zero_grad()
            for rows in window:
                loss = self.loss_of(rows)
                losses.append(loss.item())
                share = len(rows) / sum(map(len, window))
                (loss * share if self.accumulate > 1 else loss).backward()
            optimizer.step()
        return losses

    def loss_of(self, rows: list[int]) -> Tensor:
        """The mean over the pairs of a batch."""
        texts = [answer for row in rows for answer in self.pairs[row]]
        width = max(len(ids) for ids, _ in texts)
        own = self.said(self.student, self.hidden(self.student, texts, width), texts)
        with torch.no_grad():
            hidden = torch.cat([self.alone(row) for row in rows])
            other = self.said(self.other, hidden, texts)
        return self.loss(own, other).sum() / len(rows)

    def hidden(self, net: Any, texts: list[Answer], width: int) -> Tensor:
        """What the last layer maps to logits, of each token of an answer; padding stands on the right."""
        ids = torch.tensor([one + [self.pad] * (width - len(one)) for one, _ in texts])
        found: Tensor = net.model(ids).last_hidden_state.flatten(0, 1)[units(texts, width)]
        return found

    def alone(self, row: int) -> Tensor:
        """The same of the frozen one: each pair in a shape of its own, as often as a batch is large."""
        texts = [*self.pairs[row]]
        width = next(shape for shape in SHAPES if shape >= max(len(ids) for ids, _ in texts))
        count = sum(len(ids) - asked for ids, asked in texts)
        return self.hidden(self.other, texts * min(self.size, 8), width)[:count]

    def said(self, net: Any, hidden: Tensor, texts: list[Answer]) -> Tensor:
        """The log-probabilities of the answers, ``[P, 2]``."""
        tokens = torch.tensor([token for ids, asked in texts for token in ids[asked:]])
        answer = torch.tensor([number for number, (ids, asked) in enumerate(texts) for _ in ids[asked:]])
        each = net.lm_head(hidden).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        sums = torch.zeros(len(texts)).index_add(0, answer, each)
        if self.per_token:
            sums = sums / answer.bincount()
        return sums.view(-1, 2)


def dpo(beta: float, smoothing: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    """``-(1 - e) log sigmoid(z) - e log sigmoid(-z)``."""

    def loss(own: Tensor, other: Tensor) -> Tensor:
        z = beta * ((own[:, 0] - own[:, 1]) - (other[:, 0] - other[:, 1]))
        return -F.logsigmoid(z) if not smoothing else (1 - smoothing) * -F.logsigmoid(z) - smoothing * F.logsigmoid(-z)

    return loss


def squared(beta: float) -> Callable[[Tensor, Tensor], Tensor]:
    """``beta² (m - t)²``."""

    def loss(own: Tensor, other: Tensor) -> Tensor:
        m, t = beta * (own[:, 0] - own[:, 1]), beta * (other[:, 0] - other[:, 1])
        return (m - t).square()

    return loss


def divergence(beta: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Between the preferences that margins stand for."""

    def loss(own: Tensor, other: Tensor) -> Tensor:
        m, t = beta * (own[:, 0] - own[:, 1]), beta * (other[:, 0] - other[:, 1])
        p = torch.sigmoid(t)
        first, second = F.logsigmoid(t) - F.logsigmoid(m), F.logsigmoid(-t) - F.logsigmoid(-m)
        return p * first + (1 - p) * second

    return loss
