"""Publications that stay in the store: hosts of one machine map its shards, and copy what a batch needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kdmesh.errors import RunFailed
from kdmesh.hosts.packing import VALUE, pack, unpack
from kdmesh.hosts.publications import Publication
from kdmesh.signals.lazy import leaves
from kdmesh.store import EntryKey, Fingerprint
from kdmesh.store.key import canonical
from kdmesh.store.signals import restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kdmesh.hosts.packing import Packed
    from kdmesh.hosts.shelf import Shelf
    from kdmesh.signals.lazy import Lazy
    from kdmesh.store.places import Places

KEPT = "kept in the store"  # the kind as which a reference to rows crosses
FEW = 32  # samples of which it is seen how large they are
CHUNK = 2**22  # bytes that are looked at together, about


def refer(key: EntryKey, rows: Tensor, here: Fingerprint, more: dict[str, Tensor | None]) -> Packed:
    """What crosses in the place of values that the store has: an entry's key, and digests ``[n, 16]`` of its rows.

    ``here``: on what the publisher computes. Rows of it are preferred by whoever reads, whatever it computes on itself.
    """
    told = {"key": key.canonical, "on": canonical(here.record())}
    parts = [(name, np.frombuffer(one, np.uint8), "uint8") for name, one in told.items()]
    parts.append(("rows", rows.numpy(), "torch.uint8"))
    beside = {name: value for name, value in more.items() if value is not None}
    return [(VALUE, KEPT, parts), *(one for one in pack((torch.empty(0), beside)) if one[0] != VALUE)]


def is_kept(packed: Packed) -> bool:
    """Whether what has crossed is such a reference."""
    return bool(packed) and packed[0][:2] == (VALUE, KEPT)


def fetch(shelf: Shelf | None, packed: Packed) -> KeptPublication:
    """The publication that such a reference stands for. RunFailed where the store here lacks its rows."""
    parts = {name: array for name, array, _ in packed[0][2]}
    told = json.loads(bytes(parts["key"]))
    key, rows = EntryKey(told["producer"], told["signal"]), torch.tensor(parts["rows"])
    places: Places | None = None
    if shelf is not None:
        entry = shelf.store.entry(key)
        entry.find(rows, Fingerprint.of(json.loads(bytes(parts["on"]))))
        try:
            places = entry.places(rows)
        except KeyError:
            places = None
    if places is None:
        raise RunFailed(
            f"the store here lacks answers that another host has kept there (entry {key.digest[:12]})",
            instead="`kdmesh resume`, with a store that every host sees: a shared folder or a URL; or --store off",
        )
    more = unpack({0: [(VALUE, *_NOTHING), *packed[1:]]}, torch.device("cpu"))[0][1]
    return KeptPublication(places, more.get("starts"), more.get("errors"))


_NOTHING: tuple[str, list[tuple[str, Any, str]]] = ("dense", [("dense", np.zeros(0, np.float32), "torch.float32")])


class KeptPublication(Publication):
    """Values that stay in the store: ``values`` copies all of them, :meth:`at` those of a batch."""

    def __init__(self, places: Places, starts: Tensor | None, errors: Tensor | None) -> None:
        self._places = places
        self.present, self.version, self.starts, self.errors = None, 0, starts, errors

    @property
    def values(self) -> Tensor | Lazy:  # type: ignore[override]  # nobody writes to it
        """All of them, in memory."""
        return self._read(slice(None))

    def at(self, positions: Tensor, device: torch.device) -> tuple[Tensor | Lazy, Tensor | None]:
        """The rows of a batch on a device; all have a value."""
        return self._read(positions.cpu().numpy()).to(device), None

    def chunks(self) -> Iterator[Tensor | Lazy]:
        """All values, some samples at a time."""
        start, count = 0, FEW
        while start < len(self._places):
            part = self._read(slice(start, start + count))
            start, held = start + count, sum(leaf.numel() * leaf.element_size() for leaf in leaves(part))
            count = max(1, count * CHUNK // max(1, held)) if count == FEW else count
            yield part
            del part  # before there is another

    def _read(self, index: np.ndarray | slice) -> Tensor | Lazy:
        found = self._places.rows(index)
        return restored(found.values, found.shared, found.signal)
