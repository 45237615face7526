"""Batches, derived from step numbers: no batch ever travels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from kdmesh.streams.order import epoch_order, steps_per_epoch

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table


AGAIN = 2**20
"""Added to the epoch of a replayed batch, so that an augmenting view draws anew: the same samples, seen otherwise."""


class Batch(NamedTuple):
    """``x [B, ...]``, ``y [B]`` or None, positions in the stream ``[B]``, sample ids ``[B]``, and the epoch."""

    x: Tensor
    y: Tensor | None
    at: Tensor
    ids: Tensor
    epoch: int


class Lane:
    """One stream as one agent visits it, resident on one device: its shard if the stream is sharded, else all of it."""

    def __init__(self, table: Table, stream: Stream, owner: str, seed: int, device: torch.device) -> None:
        rows = stream.rows_for(owner) if owner else stream.rows
        self.stream, self.owner, self.seed, self.device = stream, owner, seed, device
        self.ids = rows
        self.x = table.x[rows].to(device)
        self.y = table.y[rows].to(device) if table.y is not None and stream.labelled else None
        self._truth = table.y[rows].to(device) if table.y is not None else None
        self._order: tuple[int, Tensor] = (-1, rows)
        self._name = stream.base or stream.name

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def truth(self) -> Tensor | None:
        """The labels for measuring only, also where the stream hides them from training."""
        return self._truth

    def count(self, step: int, size: int, drop_last: bool) -> int:
        """How many samples the batch of a step has."""
        if self.stream.replay:
            step -= 1
        if step < 0:
            return 0
        return min(size, len(self) - step % steps_per_epoch(len(self), size, drop_last) * size)

    def batch(self, step: int, size: int, drop_last: bool) -> Batch | None:
        """The batch of a step. A replayed stream gives the step before's; its first step has none."""
        if self.stream.replay:
            step -= 1
            if step < 0:
                return None
        steps = steps_per_epoch(len(self), size, drop_last)
        epoch, index = divmod(step, steps)
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(self.seed, self._name, epoch, len(self), self.owner).to(self.device))
        at = self._order[1][index * size : (index + 1) * size]
        y = None if self.y is None else self.y[at]
        if self.stream.replay:
            epoch += AGAIN
        return Batch(torch.index_select(self.x, 0, at), y, at, at, epoch)

    def samples(self, at: Tensor) -> Tensor:
        """The stable ids of positions: what a view's randomness depends on."""
        return self.ids[at.cpu()]


class Feed:
    """Every lane of a host, made when first asked for."""

    def __init__(self, table: Table, streams: dict[str, Stream], seed: int) -> None:
        self.table, self.streams, self.seed = table, streams, seed
        self._lanes: dict[tuple[str, str, str], Lane] = {}

    def lane(self, stream: str, agent: str, device: torch.device) -> Lane:
        """The lane of an agent on a stream; agents share it unless the stream is sharded."""
        spec = self.streams[stream]
        owner = agent if spec.shards is not None else ""
        key = (stream, owner, str(device))
        if key not in self._lanes:
            self._lanes[key] = Lane(self.table, spec, owner, self.seed, device)
        return self._lanes[key]
