"""On-policy distillation as anyone would write it, over plain transformers. Imports nothing of kdmesh.

Noise, orders and batches are what docs/architecture.md says of them: keyed by seeds and names, whatever computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

Learned = tuple[list[int], int]
"""A text's tokens, and how many of them are the prompt's."""


def key(*parts: int | str) -> int:
    """A seed of 63 bits that depends on every part."""
    digest = blake2b(digest_size=8)
    for part in parts:
        data = str(part).encode()
        digest.update(f"{'s' if isinstance(part, str) else 'i'}{len(data)}:".encode() + data)
    return int.from_bytes(digest.digest(), "big") >> 1


def one_of(shares: Tensor, noise: torch.Generator) -> int:
    """A token, by one number of the noise: the first with which the shares add up to more."""
    point, total = float(torch.rand((), generator=noise, dtype=torch.float64)) * float(shares.double().sum()), 0.0
    for token, share in enumerate(shares.tolist()):
        total += share
        if total > point:
            return token
    raise AssertionError("shares add up to no more than a part of their sum")


@dataclass
class Plain:
    """One student, its frozen teachers, and the prompts of the rows of a table that it learns on."""

    student: Any
    teachers: Sequence[Any]
    prompts: dict[int, list[int]]  # tokens, by row
    given: dict[int, Learned]  # what the data answer, by row
    eos: int | None
    pad: int
    seed: int
    size: int
    new: int
    make: Callable[[Any], torch.optim.Optimizer]
    greedy: bool = False
    top_p: float = 1.0
    top_k: int = 0
    temperature: float = 1.0
    draws: int = 1
    steps: int = 1  # whose texts are written together
    share: float = 0.0  # of batches that are the data's own
    hinted: dict[int, list[int]] = field(default_factory=dict)  # tokens by row: the student, asked so, is a teacher
    told: dict[int, list[int]] = field(default_factory=dict)  # tokens by row: how the teachers are asked; else the same
    revised: Callable[[int, list[int]], list[int]] | None = None  # how a first answer, in tokens, is asked about again
    merge: Callable[[Tensor, Tensor], Tensor] | None = None  # of the teachers' probabilities, with each token's row
    groups: dict[int, int] = field(default_factory=dict)  # by row: averaged by themselves
    name: str = "s"  # of the student, and of what it writes
    stream: str = "rollouts"
    texts: list[list[int]] = field(default_factory=list)  # what was written, in order

    def batches(self, epochs: int) -> Iterator[list[tuple[int, int]]]:
        """Rows and draws of every batch, in the order in which the prompts' stream visits them."""
        rows = sorted(self.prompts)
        for epoch in range(epochs):
            drawn = torch.Generator().manual_seed(key(self.seed, "order", "train", "", epoch))
            order = torch.randperm(len(rows), generator=drawn).tolist()
            every = [(rows[at], draw) for at in order for draw in range(self.draws)]
            yield from (every[start : start + self.size] for start in range(0, len(every), self.size))

    def order(self, stream: str, rows: Sequence[int]) -> Iterator[list[int]]:
        """The rows of batch after batch of a stream, without end."""
        epoch = 0
        while True:
            drawn = torch.Generator().manual_seed(key(self.seed, "order", stream, "", epoch))
            order = torch.randperm(len(rows), generator=drawn).tolist()
            for start in range(0, len(rows), self.size):
                yield [rows[at] for at in order[start : start + self.size]]
            epoch += 1

    def train(self, epochs: int) -> None:
        """Write, let the teachers say what they think of it, learn."""
        optimizer, batches = self.make(self.student.parameters()), list(self.batches(epochs))
        for begin in range(0, len(batches), self.steps):
            window = batches[begin : begin + self.steps]
            own = [not self.from_data(begin + number) for number in range(len(window))]
            asked = [one for batch, mine in zip(window, own, strict=True) for one in batch if mine]
            written = iter(self.write(asked, begin))
            for batch, mine in zip(window, own, strict=True):
                texts = [next(written) if mine else self.given[row] for row, _ in batch]
                self.update(optimizer, texts, [row for row, _ in batch])

    def from_data(self, step: int) -> bool:
        """Whether a step learns from the answers of the data."""
        drawn = torch.Generator().manual_seed(key(self.seed, "mix", self.stream, "main", step))
        return bool(torch.rand((), generator=drawn, dtype=torch.float64) < self.share) if self.share else False

    @torch.no_grad()
    def write(self, asked: list[tuple[int, int]], version: int) -> list[Learned]:
        """Each text by itself, without a cache; greedy ones by `generate`."""
        self.student.eval()
        found = []
        for row, draw in asked:
            prompt = asked_with = self.prompts[row]
            if self.revised is not None:
                first = self.drawn(prompt, self.noise("first", row, draw, version))
                asked_with = self.revised(row, first)
            if self.greedy:
                text = self.greedily(prompt)
            else:
                text = self.drawn(asked_with, self.noise(self.stream, row, draw, version))
            self.texts.append(text)
            found.append((prompt + text, len(prompt)))
        self.student.train()
        return found

    @torch.no_grad()
    def once(
        self, net: Any, writer: str, stream: str, prompts: dict[int, list[int]], draws: int = 1
    ) -> dict[tuple[int, int], list[int]]:
        """What a writer that learns no more says to each prompt, by row and draw, in tokens."""
        found, learner, self.student = {}, self.student, net
        for row, draw in ((row, draw) for row in prompts for draw in range(draws)):
            seed = key(self.seed, "written", stream, writer, row, draw, "once", 0)
            found[row, draw] = self.drawn(prompts[row], torch.Generator().manual_seed(seed))
        self.student = learner
        return found

    def noise(self, stream: str, row: int, draw: int, version: int) -> torch.Generator:
        """Of one text of a stream."""
        return torch.Generator().manual_seed(key(self.seed, "written", stream, self.name, row, draw, "main", version))

    def greedily(self, prompt: list[int]) -> list[int]:
        """As transformers writes it."""
        ids = torch.tensor([prompt])
        made = self.student.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=self.new, do_sample=False,
            eos_token_id=self.eos, pad_token_id=self.pad,
        )  # fmt: skip
        return made[0, len(prompt) :].tolist()

    def drawn(self, prompt: list[int], noise: torch.Generator) -> list[int]:
        """Token by token, each by one number of the text's own noise."""
        text: list[int] = []
        while len(text) < self.new and (not text or text[-1] != self.eos):
            logits = self.student(torch.tensor([prompt + text]), use_cache=False).logits[0, -1] / self.temperature
            if self.top_k:
                logits[logits < logits.sort(descending=True).values[self.top_k - 1]] = -torch.inf
            shares = logits.softmax(-1)
            likely, left = shares.argsort(descending=True).tolist(), 0.0
            for token in likely if self.top_p < 1 else ():
                left, before = left + float(shares[token]), left
                if before >= self.top_p:
                    shares[token] = 0
            text.append(one_of(shares, noise))
        return text

    def update(self, optimizer: torch.optim.Optimizer, texts: list[Learned], rows: list[int]) -> None:
        """One step on what all teachers say: the mean reverse KL over the tokens that are learned."""
        others = self.asked_with(self.told, texts, rows) if self.told else texts
        with torch.no_grad():
            said = [self.answers(teacher, others) for teacher in self.teachers]
            if self.hinted:
                said.append(self.answers(self.student, self.asked_with(self.hinted, texts, rows)))
        self.learn(optimizer, texts, rows, said)

    def learn(
        self, optimizer: torch.optim.Optimizer, texts: list[Learned], rows: list[int], said: list[Tensor]
    ) -> None:
        """One step on what was said of the texts."""
        optimizer.zero_grad()
        answers, total = self.answers(self.student, texts), torch.zeros(())
        tokens = torch.tensor([row for row, (one, asked) in zip(rows, texts, strict=True) for _ in one[asked:]])
        told = [logits.log_softmax(-1) for logits in said]
        if self.merge is not None:
            merged = self.merge(torch.stack([logits.softmax(-1) for logits in said]), tokens)
            told = [merged.clamp_min(torch.finfo(merged.dtype).tiny).log()]
        for other in told:
            own = answers.log_softmax(-1)
            each = own.exp() * (own - other)
            if self.groups:
                group = torch.tensor([self.groups[row] for row in tokens.tolist()])
                sizes = group.bincount()
                factors = len(own) / ((sizes > 0).sum() * sizes[group]).double()
                total = total + (each.sum(-1) * factors.float()).sum() / len(own)
            else:
                total = total + each.sum() / len(own)
        total.backward()
        optimizer.step()

    def asked_with(self, prompts: dict[int, list[int]], texts: list[Learned], rows: list[int]) -> list[Learned]:
        """The same answers after other prompts."""
        pairs = zip(texts, rows, strict=True)
        return [(prompts[row] + one[asked:], len(prompts[row])) for (one, asked), row in pairs]

    def answers(self, net: Any, texts: list[Learned]) -> Tensor:
        """Logits of each learned token, of a batch padded on the right."""
        width = max(len(ids) for ids, _ in texts)
        ids = torch.tensor([one + [self.pad] * (width - len(one)) for one, _ in texts])
        at = torch.tensor(
            [row * width + place for row, (one, asked) in enumerate(texts) for place in range(asked - 1, len(one) - 1)]
        )
        logits: Tensor = net.lm_head(net.model(ids).last_hidden_state.flatten(0, 1)[at])
        return logits
