"""Where rows of an entry stand: they are looked for once, and read as often as is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdmesh.store import gather

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from kdmesh.store.shards import Shard


@dataclass(frozen=True)
class Rows:
    """Rows of an entry, in the order in which they were asked for.

    Attributes:
        values: tensors by name.
        starts: where each sample's rows begin, ``[n + 1]`` int64; None where each has one.
        shared: tensors that all rows share, by name. They are mapped: nobody may change them.
        signal: what the values are, as their writer noted it.
    """

    values: dict[str, Tensor]
    starts: Tensor | None
    shared: dict[str, Tensor] = field(default_factory=dict)
    signal: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """Rows that were found. Of each there are 12 bytes here; the shards stay mapped, also after they are deleted.

    Attributes:
        shards: in which they are, all of one layout.
        of: for each row the number of its shard, ``[n]`` int32.
        at: and its place there, ``[n]`` int64.
        shared: tensors that all rows share; ``signal``: what the values are.
    """

    shards: Sequence[Shard]
    of: np.ndarray
    at: np.ndarray
    shared: dict[str, Tensor]
    signal: dict[str, Any]

    def __len__(self) -> int:
        return len(self.of)

    def rows(self, index: np.ndarray | slice = slice(None)) -> Rows:
        """Some of them, copied: by default all."""
        of, at = self.of[index], self.at[index]
        values, starts = gather.joined(self.shards, of, at) if len(of) else gather.none(self.shards[0])
        return Rows(values, starts, self.shared, self.signal)
