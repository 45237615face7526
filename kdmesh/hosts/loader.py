"""Batches: derived from step numbers, so that none travels (:class:`ShardView`), or written by an agent's host
(:class:`kdmesh.hosts.written.Written`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from kdmesh.streams.order import alike, epoch_order, steps_per_epoch
from kdmesh.streams.seeds import mix
from kdmesh.streams.tokens import Encoded
from kdmesh.streams.unread import Unread

if TYPE_CHECKING:
    from kdmesh.hosts.preprocessing import Preprocessor
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.tokens import Tokens


AGAIN = 2**20
"""Added to the epoch of a replayed batch, so that an augmenting view draws anew: the same samples, seen otherwise."""


SOON = 2
"""Batches that are asked for before they are due, of samples that are not in memory."""


class Batch(NamedTuple):
    """``x [B, ...]``, ``y [B]`` or None, positions in the stream ``[B]``, and the epoch.

    Of texts ``x`` are tokens, and where the task asks for an answer per token, there is a ``y`` for each.
    """

    x: Any
    y: Tensor | None
    at: Tensor
    epoch: int


class BatchSource(Protocol):
    """A stream as the ops of a step read it. ``units``: whether a sample has an answer per token rather than one."""

    stream: Stream
    device: torch.device
    units: bool

    @property
    def owner(self) -> str:
        """The agent whose shard it is, "" where the stream is not divided."""

    def count(self, step: int, size: int, drop_last: bool) -> int:
        """How many answers the batch of a step asks for, known before the batch is."""

    def sizes(self, step: int, size: int, drop_last: bool) -> int:
        """How many samples the batch of a step has."""

    def batch(self, step: int, size: int, drop_last: bool) -> Batch | None:
        """The batch of a step; None where it has none."""

    def rows(self, at: Tensor) -> Tensor:
        """Where the answers for the samples at positions ``at`` stand among those for all."""

    def samples(self, at: Tensor) -> Tensor:
        """The stable ids of positions."""


class ShardView:
    """One stream as one agent visits it, resident on one device: its shard if the stream is sharded, else all of it.

    ``units``: whether the task asks for an answer per token rather than per sample; ``told``: texts stand after the
    prompts that the agent is told, if it is.
    """

    def __init__(
        self,
        reading: Preprocessor,
        stream: Stream,
        agent: str,
        owner: str,
        seed: int,
        device: torch.device,
        told: bool = False,
    ) -> None:
        table, rows = reading.table, stream.rows_for(owner) if owner else stream.rows
        self.stream, self.owner, self.seed, self.device = stream, owner, seed, device
        self.ids = rows
        self.x: Tensor | Unread | Encoded
        self.units, self.counts, self._sizes = False, None, None
        self._truth = None if table.y is None else table.y[rows].to(device)
        if reading.texts:
            self.x = (reading.told if told else reading.encoded)(agent, rows, stream.pairs).to(device)
            self.units = reading.plan.task_of(agent).rows == "units"
            self._sizes = reading.sizes(rows) if reading.plan.spec.text.bucket else None
            if self.units:
                self._truth = None if self.x.mapped else self.x.targets
                self.counts = self.x.counts
        else:
            x = reading.numbers(agent)
            self.x = (x.select(rows) if isinstance(x, Unread) else x[rows]).to(device)
        self._take = self.x.taker() if isinstance(self.x, Unread) else None
        self._order: tuple[int, Tensor] = (-1, rows)
        self._name = stream.base or stream.name

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def truth(self) -> Tensor | None:
        """The labels for measuring only, also where the stream hides them from training."""
        if isinstance(self.x, Encoded) and self.units and self._truth is None:
            return self.x.targets  # of tokens in files, which are not kept
        return self._truth

    @property
    def characters(self) -> Tensor | None:
        """About how many characters each unit is, for measuring; None where samples have none."""
        return self.x.characters if isinstance(self.x, Encoded) and self.units else None

    @property
    def y(self) -> Tensor | None:
        """The labels, where the stream has them."""
        return self.truth if self.stream.labelled else None

    def count(self, step: int, size: int, drop_last: bool) -> int:
        """How many answers the batch of a step asks for: samples, or units of these."""
        if self.stream.replay:
            step -= 1
        if step < 0:
            return 0
        if self.counts is not None:
            return int(self.counts[self._at(step, size, drop_last)[0]].sum())
        return min(size, len(self) - step % steps_per_epoch(len(self), size, drop_last) * size)

    def sizes(self, step: int, size: int, drop_last: bool) -> int:
        """How many samples the batch of a step has."""
        step -= self.stream.replay
        return 0 if step < 0 else len(self._at(step, size, drop_last)[0])

    def _at(self, step: int, size: int, drop_last: bool) -> tuple[Tensor, int]:
        """The positions of a step's batch, and the epoch."""
        epoch, index = divmod(step, steps_per_epoch(len(self), size, drop_last))
        if self._order[0] != epoch:
            order = epoch_order(self.seed, self._name, epoch, len(self), self.owner)
            if self._sizes is not None:
                order = alike(order, self._sizes, size, drop_last, mix(self.seed, "alike", self._name, epoch))
            self._order = (epoch, order.to(self.device))
        return self._order[1][index * size : (index + 1) * size], epoch

    def batch(self, step: int, size: int, drop_last: bool) -> Batch | None:
        """The batch of a step. A replayed stream gives the step before's; its first step has none."""
        if self.stream.replay:
            step -= 1
            if step < 0:
                return None
        at, epoch = self._at(step, size, drop_last)
        if isinstance(self.x, Unread) and self.x.asks:
            self.x.soon(at)
            for later in self.ahead(step + 1 + self.stream.replay, size, drop_last, SOON):
                self.x.soon(later)
        return self.cut(at, epoch + AGAIN if self.stream.replay else epoch)

    def cut(self, at: Tensor, epoch: int) -> Batch:
        """The samples at positions as a batch of an epoch."""
        if isinstance(self.x, Encoded):
            tokens = self.x.batch(at)
            known = tokens.targets if self.units else None if self._truth is None else self._truth[at]
            return Batch(tokens, known if self.stream.labelled else None, at, epoch)
        y = None if self.y is None else torch.index_select(self.y, 0, at)
        if isinstance(self.x, Unread):
            assert self._take is not None
            return Batch(self._take(at), y, at, epoch)
        return Batch(torch.index_select(self.x, 0, at), y, at, epoch)

    def ahead(self, step: int, size: int, drop_last: bool, most: int) -> list[Tensor]:
        """The positions of the batches of a step and, within its epoch, of those that follow: at most so many."""
        step -= self.stream.replay
        per = steps_per_epoch(len(self), size, drop_last)
        return [self._at(step + n, size, drop_last)[0] for n in range(min(most, per - step % per))]

    def rows(self, at: Tensor) -> Tensor:
        """Where the answers for the samples at positions ``at`` stand among those for the whole stream."""
        return self.x.unit_rows(at) if isinstance(self.x, Encoded) and self.units else at

    def samples(self, at: Tensor) -> Tensor:
        """The stable ids of positions: what a view's randomness depends on."""
        return self.ids[at.cpu()]


class Loader:
    """Every shard view of a host, made when first asked for."""

    def __init__(self, reading: Preprocessor, streams: dict[str, Stream], seed: int) -> None:
        self.reading, self.streams, self.seed = reading, streams, seed
        self._views: dict[tuple[str, ...], ShardView] = {}

    def shard(self, stream: str, agent: str, device: torch.device, told: bool = False) -> ShardView:
        """The shard view of an agent on a stream; agents that read alike share it unless the stream is sharded.

        ``told``: for teaching and learning, with the prompts of the agent's view, in place of the samples as they are.
        """
        spec = self.streams[stream]
        owner = spec.owner(agent)
        read = self.reading.told_key(agent) if told else (self.reading.key(agent), "")
        key = (stream, owner, str(device), *read)
        if key not in self._views:
            self._views[key] = ShardView(self.reading, spec, agent, owner, self.seed, device, told)
        return self._views[key]

    def forget(self, stream: str, agent: str) -> None:
        """Make the views of some samples anew when they are asked for: of an agent's on a stream."""
        rows = self.streams[stream].rows_for(agent)
        self._views = {key: one for key, one in self._views.items() if not torch.isin(one.ids, rows).any()}

    def one(self, agent: str, device: torch.device) -> Tensor | Tokens:
        """One sample as an agent reads it: the first text that is here, where some are private to others."""
        return self.reading.samples(agent, self.reading.here[:1] if self.reading.texts else torch.arange(1)).to(device)
