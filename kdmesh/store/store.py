"""The store of one host: what was published or recorded on a stream, one row per sample of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Key(NamedTuple):
    """Who made it, on which stream, what (`""` for logits, else a tap's name), and how it is kept."""

    source: str
    stream: str
    what: str = ""
    kind: str = "publish"  # publish | recorded


@dataclass
class Publication:
    """``values [n, ...]`` for the n samples of a stream, in the stream's order; ``present [n]`` bool, None for all."""

    values: Tensor
    present: Tensor | None
    version: int

    def at(self, positions: Tensor, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The rows of a batch on a device, and which of them have a value."""
        positions = positions.to(self.values.device)
        present = None if self.present is None else self.present[positions].to(device)
        return self.values[positions].to(device), present


class Store:
    """Publications by key. ``version`` rises with every change, so that what was derived can be made anew."""

    def __init__(self) -> None:
        self.version = 0
        self._visible: dict[Key, Publication] = {}
        self._recording: dict[Key, Publication] = {}

    def put(self, key: Key, values: Tensor, present: Tensor | None = None) -> None:
        """Replace what is visible under a key."""
        self.version += 1
        self._visible[key] = Publication(values, present, self.version)

    def get(self, key: Key) -> Publication | None:
        """What is visible under a key; None before the first publication."""
        return self._visible.get(key)

    def tables(self) -> list[tuple[str, dict[Key, Publication]]]:
        """What is visible, and what is being recorded, for a checkpoint."""
        return [("visible", self._visible), ("recording", self._recording)]

    def restore(self, table: str, key: Key, publication: Publication) -> None:
        """Put back an entry of one of the :meth:`tables`."""
        self.version += 1
        publication.version = self.version
        dict(self.tables())[table][key] = publication

    def record(self, key: Key, n: int, positions: Tensor, values: Tensor, at_once: bool) -> None:
        """Note values as they were seen in training; ``at_once`` makes them visible without :meth:`commit`."""
        table = self._recording.get(key)
        if table is None:
            empty = torch.zeros((n, *values.shape[1:]), dtype=values.dtype, device=values.device)
            present = torch.zeros(n, dtype=torch.bool, device=values.device)
            table = self._recording[key] = Publication(empty, present, 0)
        table.values[positions] = values
        assert table.present is not None
        table.present[positions] = True
        if at_once:
            self._visible[key] = table

    def commit(self, key: Key) -> Publication | None:
        """Make what was recorded so far visible, and return it; recording goes on into a copy."""
        table = self._recording.get(key)
        if table is None or table.present is None:
            return None
        self.put(key, table.values.clone(), table.present.clone())
        return self._visible[key]
