"""Still forwards of texts: samples differ in length, and so do the rows that a model gives for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.signals.lazy import Lazy, Projected
from kdmesh.streams.tokens import ranges, starts_of

if TYPE_CHECKING:
    from kdmesh.agents.agent import Agent, Value
    from kdmesh.streams.tokens import Encoded, Tokens


def still(agent: Agent, x: Tokens | Encoded, fixed: int, names: tuple[str, ...]) -> Value:
    """Forward in eval mode without gradient, each sample in a shape that depends on its own length alone."""
    training = agent.module.training
    agent.module.eval()
    wholes: dict[str, list[Tensor | Lazy]] = {name: [] for name in ("", *names)}
    counts: dict[str, list[Tensor]] = {"samples": [], "units": [], "tokens": []}
    places: list[Tensor] = []
    with torch.no_grad():
        for at, tokens in x.parts(fixed):
            own = {"samples": torch.ones_like(tokens.counts), "units": tokens.counts, "tokens": tokens.lengths}
            logits, values = agent.forward(tokens, names)
            for name, value in {**values, "": logits}.items():
                real = int(own[agent.per(name)][: len(at)].sum())
                wholes[name].append(value.take(torch.arange(real)) if isinstance(value, Lazy) else value[:real])
            for per, count in own.items():
                counts[per].append(count[: len(at)])
            places.append(at)
    agent.module.train(training)
    back = torch.cat(places).argsort()
    orders = {}
    for per, groups in counts.items():
        known = torch.cat(groups)
        orders[per] = ranges(starts_of(known)[:-1][back], known[back])
    found = {name: _joined(parts, orders[agent.per(name)]) for name, parts in wholes.items()}
    return found.pop(""), found


def _joined(parts: list[Tensor | Lazy], order: Tensor) -> Tensor | Lazy:
    """One value of many, its rows in order."""
    first = parts[0]
    if isinstance(first, Projected):
        hidden = torch.cat([part.hidden for part in parts if isinstance(part, Projected)])
        return Projected(hidden[order], first.weight, first.bias)
    return torch.cat([part for part in parts if isinstance(part, Tensor)])[order]
