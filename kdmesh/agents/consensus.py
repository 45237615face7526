"""A consensus at work on one host: gathers its members' signals for a batch and combines them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.agents.build import import_path
from kdmesh.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode


class Consensus:
    """One rule, built once per host. ``combine`` is the only place where signals of several sources meet.

    ``strict``: what the rule gives is checked before anyone reads it.
    """

    def __init__(self, node: ConsensusNode, config: dict[str, Any], strict: bool = False) -> None:
        self.node = node
        self.rule: Any = import_path(node.factory, f"consensus.{node.name}.rule")(**config)
        self.rule.space = node.space
        self.strict = strict
        self.nested: list[Consensus] = []  # members that are consensus nodes themselves
        self._tables: dict[str | None, tuple[int, Signal | None]] = {}

    def variant(self, reader: str | None) -> str | None:
        """For whom it differs: the reader, under leave-one-out or a per-target rule, its own or nested; else nobody."""
        node = self.node
        apart = (
            node.per_target
            or (not node.include_self and reader is not None and any(edge.source == reader for edge in node.members))
            or any(inner.variant(reader) is not None for inner in self.nested)
        )
        return reader if apart else None

    def gather(
        self, reader: str | None, fetch: Callable[[Edge], Signal | None]
    ) -> tuple[list[Signal | None], Tensor | None] | None:
        """Fetch the members' signals and who is present ``[M, B]`` (None for all); None where nobody has published.

        Under leave-one-out a reader's own signal counts as absent.
        """
        alone = None if self.node.include_self else reader
        signals = [None if edge.source == alone else fetch(edge) for edge in self.node.members]
        known = [signal for signal in signals if signal is not None]
        if not known:
            return None
        if len(known) == len(signals) and all(signal.weights is None for signal in known):
            return signals, None
        like = known[0].value
        everyone = torch.ones(len(like), dtype=torch.bool, device=like.device)
        rows = [
            ~everyone if signal is None else everyone if signal.weights is None else signal.weights != 0
            for signal in signals
        ]
        return signals, torch.stack(rows)

    def combine(
        self, reader: str | None, fetch: Callable[[Edge], Signal | None], labels: Tensor | None
    ) -> Signal | None:
        """Combine what the members say about a batch; samples nobody speaks of get weight 0."""
        gathered = self.gather(reader, fetch)
        if gathered is None:
            return None
        signals, present = gathered
        logits = self.stack(signals)
        node = self.node
        values = (logits / node.temperature).softmax(-1) if node.space == "probs" else logits
        more: dict[str, Any] = {"labels": labels} if node.needs_labels else {}
        if node.per_target:
            more["target"] = reader
        value = self.rule.forward(values, logits=logits, present=present, **more, **self.given(fetch))
        weights = None if present is None else present.any(0).to(value.dtype)
        if self.strict:
            refuse_improper(value, values.shape[1:], node.space, weights)
        return Signal(value, node.space, weights)

    def given(self, fetch: Callable[[Edge], Signal | None]) -> dict[str, list[Tensor | None]]:
        """What informs the rule beside what it combines."""
        if not self.node.given:
            return {}
        signals = [fetch(edge) for edge in self.node.given]
        return {"inputs": [None if signal is None else signal.value for signal in signals]}

    def stack(self, signals: list[Signal | None]) -> Tensor:
        """Logits ``[M, B, C]``, zeros where a source has not published."""
        like = next(signal.value for signal in signals if signal is not None)
        return torch.stack([torch.zeros_like(like) if signal is None else self._logits(signal) for signal in signals])

    def _logits(self, signal: Signal) -> Tensor:
        """A member's logits; of another consensus' probabilities those that give them at this temperature."""
        if signal.form != "probs":
            return signal.value
        return signal.value.clamp_min(torch.finfo(signal.value.dtype).tiny).log() * self.node.temperature

    def table(self, reader: str | None, version: int, make: Callable[[], Signal | None]) -> Signal | None:
        """The consensus on a whole stream, kept until a publication changes it."""
        key = self.variant(reader)
        known = self._tables.get(key)
        if known is None or known[0] != version:
            known = self._tables[key] = (version, make())
        return known[1]


def refuse_improper(value: Any, shape: torch.Size, space: str, weights: Tensor | None) -> None:
    """Raise ValueError for what is no signal ``[B, C]``, is not finite, or, in space `probs`, no distribution.

    Samples of weight 0 may hold anything.
    """
    if not isinstance(value, Tensor) or value.shape != shape:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"it gave {found}, not a tensor of shape {tuple(shape)}")
    rows = value.detach() if weights is None else value.detach()[weights != 0]
    if not rows.isfinite().all():
        raise ValueError(f"it gave {int((~rows.isfinite()).sum())} values that are not finite")
    if space == "probs" and rows.numel():
        low, off = rows.min().item(), (rows.sum(-1) - 1).abs().max().item()
        if low < 0 or off > 1e-3:
            raise ValueError(f"it gave no distribution: the least value is {low:.4g}, a sum is off from 1 by {off:.4g}")
