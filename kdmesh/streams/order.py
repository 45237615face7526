"""The order of samples: every host derives it from names and numbers, so no batch ever travels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from torch import Tensor


def permutation(n: int, *names: int | str) -> Tensor:
    """Return a permutation of ``0 .. n - 1`` (int64) that depends on ``n`` and the names alone."""
    generator = torch.Generator(device="cpu").manual_seed(mix(*names))
    return torch.randperm(n, generator=generator, device="cpu")


def epoch_order(seed: int, stream: str, epoch: int, n: int, owner: str = "") -> Tensor:
    """Return the positions ``0 .. n - 1`` (int64) in the order in which an epoch visits them.

    ``owner`` is the agent whose shard is visited, if the stream is sharded: agents that share a stream see the same
    batches, owners of shards each have an order of their own.
    """
    return permutation(n, seed, "order", stream, owner, epoch)


WINDOW = 32  # batches among whose samples those alike in size are brought together


def alike(order: Tensor, sizes: Tensor, batch_size: int, drop_last: bool, seed: int) -> Tensor:
    """Reorder an epoch so that batches hold samples alike in ``sizes [n]``, which position i of the stream has.

    Within windows of 32 batches the samples are sorted by size, and these windows' batches are then shuffled; an
    epoch's last, smaller batch stays its last. Every sample still comes once.
    """
    full = len(order) // batch_size * batch_size
    head, tail = order[:full], order[full:]
    parts = [part[sizes[part].argsort(stable=True)] for part in head.split(WINDOW * batch_size)]
    batches = torch.cat(parts).view(-1, batch_size) if parts else head.view(0, batch_size)
    mixed = batches[permutation(len(batches), seed)].flatten()
    return mixed if drop_last else torch.cat([mixed, tail])


def steps_per_epoch(n: int, batch_size: int, drop_last: bool) -> int:
    """Return how many batches ``n`` samples make; with ``drop_last`` only full ones count.

    An epoch without a batch is refused: a phase over it would never end.
    """
    steps = n // batch_size if drop_last else -(-n // batch_size)
    if steps == 0:
        raise MeshError(
            f"{n} samples make no full batch of {batch_size}",
            where="train.drop_last",
            instead=f"drop_last: false, or a batch_size of at most {max(n, 1)}",
        )
    return steps
