"""What is true of a table whose samples are read when a batch asks for them, beside the same in memory."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import torch

from kdmesh.streams.unread import Unread

if TYPE_CHECKING:
    from kdmesh.streams.table import Table


def same_samples(lazy: Table, memory: Table, at: torch.Tensor) -> None:
    """Samples of numbers have the same bits, all of them and those ``at`` some rows, also in another process."""
    assert isinstance(lazy.x, Unread) and isinstance(memory.x, torch.Tensor)
    assert lazy.x.shape == memory.x.shape and lazy.shape == memory.shape and len(lazy) == len(memory)
    assert lazy.fingerprint == memory.fingerprint and torch.equal(lazy.keys, memory.keys)
    assert torch.equal(lazy.tensor, memory.x) and torch.equal(torch.stack(lazy.bounds), torch.stack(memory.bounds))
    assert torch.equal(lazy.x[at], memory.x[at]) and torch.equal(lazy.x.select(at)[1:3], memory.x[at[1:3]])
    again = pickle.loads(pickle.dumps(lazy.x.select(at)))
    assert torch.equal(again[:], memory.x[at])
