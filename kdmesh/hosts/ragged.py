"""Still forwards of texts: samples differ in length, and so do the rows that a model gives for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from kdmesh.signals.lazy import Lazy, joined, leaves, rebuild
from kdmesh.streams.tokens import ranges, starts_of

if TYPE_CHECKING:
    from kdmesh.streams.tokens import Encoded, Tokens

Value = tuple[Any, dict[str, Any]]  # logits, and what else was asked for by name; some may not be made yet
ROWS = 8  # of a still forward on a CPU: more gain it little there, and rows that repeat a sample are for nothing


class Forwards(Protocol):
    """What gives the answers: an agent."""

    module: Any
    weights: Any

    def forward(self, x: Any, names: tuple[str, ...] = ()) -> Any:
        """The logits and the values of these names."""

    def per(self, name: str) -> str:
        """What a value has a row for: `samples`, `units` or `tokens`."""


def inference(agent: Forwards, x: Tokens | Encoded, fixed: int, names: tuple[str, ...]) -> Value:
    """Forward in eval mode without gradient, each sample in a shape that depends on its own length alone."""
    return answers(agent, x, rows_of(x, fixed), names).all()


@dataclass
class Answers:
    """Values by name (logits: "") of n samples, one's rows after the other's; ``counts``: of rows, by what they are."""

    agent: Forwards
    values: dict[str, Tensor | Lazy]
    counts: dict[str, Tensor]  # each [n] int64

    def of(self, samples: Tensor) -> Answers:
        """Those of some samples, in this order."""
        counts = {per: count[samples.to(count.device)] for per, count in self.counts.items()}
        orders = {
            per: ranges(starts_of(count)[samples.to(count.device)], counts[per]) for per, count in self.counts.items()
        }
        values = {
            name: rebuild(value, [part[orders[self.agent.per(name)]] for part in leaves(value)])
            for name, value in self.values.items()
        }
        return Answers(self.agent, values, counts)

    @classmethod
    def joined(cls, parts: list[Answers]) -> Answers:
        """Those of one after the other."""
        first = parts[0]
        if len(parts) == 1:
            return first
        values = {name: joined([part.values[name] for part in parts]) for name in first.values}
        return cls(first.agent, values, {per: torch.cat([part.counts[per] for part in parts]) for per in first.counts})

    def all(self) -> Value:
        """The logits and the other values."""
        return self.values[""], {name: value for name, value in self.values.items() if name}


def rows_of(x: Tokens | Encoded, fixed: int) -> int:
    """How many rows a shape has."""
    return min(fixed, ROWS) if x.device.type == "cpu" else fixed


def answers(agent: Forwards, x: Tokens | Encoded, rows: int, names: tuple[str, ...]) -> Answers:
    """Forward in eval mode without gradient, each sample in a shape that depends on its own length alone."""
    if (ahead := getattr(agent.module, "ahead", None)) is not None:  # what is elsewhere is asked for much at a time
        ahead(x)
    training = agent.module.training
    if training:
        agent.module.eval()
    parts: dict[str, list[Tensor | Lazy]] = {name: [] for name in ("", *names)}
    counts: dict[str, list[Tensor]] = {"samples": [], "units": [], "tokens": []}
    places: list[Tensor] = []
    with torch.no_grad():
        for at, tokens in x.parts(rows):
            own = {"samples": torch.ones_like(tokens.counts), "units": tokens.counts, "tokens": tokens.lengths}
            logits, values = agent.forward(tokens, names)
            for name, value in {**values, "": logits}.items():
                real = int(own[agent.per(name)][: len(at)].sum())
                parts[name].append(rebuild(value, [part[:real] for part in leaves(value)]))
            for per, count in own.items():
                counts[per].append(count[: len(at)])
            places.append(at)
    if training:
        agent.weights.train()
    whole = {name: joined(found) for name, found in parts.items()}
    answered = Answers(agent, whole, {per: torch.cat(found) for per, found in counts.items()})
    return answered.of(torch.cat(places).argsort())
