"""What was published or recorded on a stream and is read on one host: one row per sample of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from kdmesh.signals import codecs
from kdmesh.signals.lazy import taken
from kdmesh.streams.tokens import ranges

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kdmesh.signals.lazy import Lazy


class Key(NamedTuple):
    """The source, the stream, which of the source's outputs (see `Edge.output`), and how it is kept."""

    source: str
    stream: str
    output: str = ""
    kind: str = "publish"  # publish | recorded | written


@dataclass
class Publication:
    """``values [n, ...]`` for the n samples of a stream, in the stream's order; ``present [n]`` bool, None for all.

    ``starts [n + 1]``: where each sample's rows begin, if a sample has as many as it has tokens; ``present`` is then of
    rows too. ``errors [T]``: the mean squared errors of the source on validation as it published, where a rule asks.
    """

    values: Tensor | Lazy
    present: Tensor | None
    version: int
    starts: Tensor | None = None
    errors: Tensor | None = None

    def rows(self, positions: Tensor) -> Tensor:
        """The rows of samples at ``positions [B]``, one sample's after the other's."""
        positions = positions.to(self.values.device)
        if self.starts is None:
            return positions
        return ranges(self.starts[positions], self.starts[positions + 1] - self.starts[positions])

    def at(self, positions: Tensor, device: torch.device) -> tuple[Tensor | Lazy, Tensor | None]:
        """The rows of a batch on a device, and which of them have a value."""
        rows = self.rows(positions)
        present = None if self.present is None else self.present[rows].to(device)
        return taken(self.values, rows).to(device), present

    def tensors(self) -> Iterator[tuple[str, str, Tensor]]:
        """Everything it is made of, for a checkpoint: the kind of signal, "" beside it, a part's name, and a tensor."""
        kind, parts = codecs.pack(self.values)
        for name, tensor in parts.items():
            yield kind, name, tensor
        if self.present is not None:
            yield "", "present", self.present
        if self.starts is not None:
            yield "", "starts", self.starts
        if self.errors is not None:
            yield "", "errors", self.errors

    @classmethod
    def of(cls, tensors: dict[tuple[str, str], Tensor]) -> Publication:
        """What :meth:`tensors` took apart, by kind and name."""
        (kind,) = {kind for kind, _ in tensors if kind}
        values = codecs.restore(kind, {name: tensor for (of, name), tensor in tensors.items() if of})
        present, starts, errors = (tensors.get(("", name)) for name in ("present", "starts", "errors"))
        return cls(values, present, 0, starts, errors)


class Publications:
    """Publications by key. ``version`` rises with every change, so that what was derived can be made anew."""

    def __init__(self) -> None:
        self.version = 0
        self._visible: dict[Key, Publication] = {}
        self._hidden: frozenset[str] = frozenset()
        self._recording: dict[Key, Publication] = {}

    def put(
        self,
        key: Key,
        values: Tensor | Lazy,
        present: Tensor | None = None,
        starts: Tensor | None = None,
        errors: Tensor | None = None,
    ) -> None:
        """Replace what is visible under a key."""
        self.version += 1
        self._visible[key] = Publication(values, present, self.version, starts, errors)

    def keep(self, key: Key, values: Tensor) -> None:
        """Replace what is visible under a key from which nothing is derived: ``version`` stays."""
        self._visible[key] = Publication(values, None, self.version)

    def forget(self, sources: Collection[str]) -> None:
        """Have nothing of these be visible."""
        if gone := [key for key in self._visible if key.source in sources]:
            self.version += 1
            for key in gone:
                del self._visible[key]

    def hide(self, sources: Collection[str]) -> None:
        """Have nothing of these be visible until others are hidden, whatever is put meanwhile."""
        if (hidden := frozenset(sources)) != self._hidden:
            self.version += 1
            self._hidden = hidden

    def outdate(self) -> None:
        """Have what was derived be made anew."""
        self.version += 1

    def get(self, key: Key) -> Publication | None:
        """What is visible under a key; None before the first publication."""
        return None if key.source in self._hidden else self._visible.get(key)

    def tables(self) -> list[tuple[str, dict[Key, Publication]]]:
        """What is visible, and what is being recorded, for a checkpoint."""
        return [("visible", self._visible), ("recording", self._recording)]

    def restore(self, table: str, key: Key, publication: Publication) -> None:
        """Put back an entry of one of the :meth:`tables`."""
        self.version += 1
        publication.version = self.version
        dict(self.tables())[table][key] = publication

    def record(
        self, key: Key, n: int, positions: Tensor, values: Tensor, at_once: bool, starts: Tensor | None = None
    ) -> None:
        """Note values as they were seen in training; ``at_once`` makes them visible without :meth:`commit`."""
        table = self._recording.get(key)
        if table is None:
            rows = n if starts is None else int(starts[-1])
            empty = torch.zeros((rows, *values.shape[1:]), dtype=values.dtype, device=values.device)
            present = torch.zeros(rows, dtype=torch.bool, device=values.device)
            table = self._recording[key] = Publication(empty, present, 0, starts)
        at = table.rows(positions)
        assert table.present is not None and isinstance(table.values, Tensor)
        table.values[at] = values
        table.present[at] = True
        if at_once:
            self._visible[key] = table

    def commit(self, key: Key) -> Publication | None:
        """Make what was recorded so far visible, and return it; recording goes on into a copy."""
        table = self._recording.get(key)
        if table is None or table.present is None or not isinstance(table.values, Tensor):
            return None
        self.put(key, table.values.clone(), table.present.clone(), table.starts)
        return self._visible[key]
