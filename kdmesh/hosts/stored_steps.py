"""Answers from the store within the steps of a phase: of a few at once, or, where they are small, of a whole view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.hosts import stored
from kdmesh.hosts.forms import form_of
from kdmesh.hosts.loader import ShardView
from kdmesh.signals.lazy import leaves

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.loader import Batch, BatchSource
    from kdmesh.hosts.ragged import Value

STEPS = 64  # of which the answers are fetched together
VALUES = 2**22  # of a step's answers that are held at a time, about


def answers_in_steps(
    inputs: Inputs, one: Agent, shard: BatchSource, names: tuple[str, ...]
) -> Callable[[int, Batch], Value] | None:
    """What a frozen agent says in the steps of a phase, by step and batch; None where the store has no part in it."""
    host = inputs.host
    if not stored.still(host, one):
        return None
    if one.mixing is not None:
        if host.shelf is not None:
            host.shelf.left.setdefault(one.name, "its batches are mixed anew in each step")
        return None
    size, form = host.forward_size(one.name), form_of(host, one.name)
    view, logits = one.view is not None, stored.is_read(host, one.name)
    found = stored.stored(host, one, shard, names, size, view=view, form=form, logits=logits)
    if found is None:
        return None
    assert isinstance(shard, ShardView)
    size, drop, last = inputs.settings.batch_size, inputs.settings.drop_last, max(inputs.ends.values())

    def batches(step: int) -> list[Tensor]:
        return shard.ahead(inputs.position(step, shard), size, drop, min(STEPS, last - step))

    return InSteps(found, batches)


class InSteps:
    """The answers for the batches of steps: of a few at once, or, where all are there and small, of a whole view."""

    def __init__(self, found: stored.Stored, batches: Callable[[int], list[Tensor]]) -> None:
        self._found, self._batches = found, batches
        self._window = 1  # how large values are is known after the first
        self._steps: dict[int, Value] = {}
        self._tables: dict[int, Value | None] = {}  # by number of the view; None: not all are there, or too large
        self._room = stored.TABLES  # bytes
        self._epoch = -1

    def __call__(self, step: int, batch: Batch) -> Value:
        """The logits and named values of a step's batch."""
        found = self._found
        if (table := self._table(batch.epoch)) is not None:
            found.spared(len(batch.at))
            return found.picked(table, batch.at.cpu())
        if step not in self._steps:
            self._steps = {}  # before there are others
            at = self._batches(step)[: self._window]
            whole = found(torch.cat(at), batch.epoch)
            ends = torch.tensor([len(part) for part in at]).cumsum(0).tolist()
            self._steps = dict(enumerate(found.cut(whole, torch.cat(at), ends), step))
            values = sum(leaf.numel() for value in (whole[0], *whole[1].values()) for leaf in leaves(value))
            self._window = max(1, min(STEPS, VALUES * len(at) // max(values, 1)))
        return self._steps.pop(step)

    def _table(self, epoch: int) -> Value | None:
        """All answers in the view of an epoch; looked for once an epoch, until they are there."""
        view = self._found.view(epoch)
        table = self._tables.get(view)
        if table is None and epoch != self._epoch:
            self._epoch, self._steps = epoch, {}
            size = self._found.known(epoch)
            if size is not None and size <= self._room:
                table = self._tables[view] = self._found.all(epoch)
                self._room -= size
        return table
