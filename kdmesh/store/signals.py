"""Signals in the store: taken apart by their codecs, kept in a form, and made again; and texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError, RunFailed
from kdmesh.files import reason
from kdmesh.signals import codecs
from kdmesh.signals.lazy import Lazy
from kdmesh.store import forms
from kdmesh.store.entry import Entry, Round
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.packed import COLUMNS
from kdmesh.store.shards import OPTIONAL, SHARED, SIGNAL, Shard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEXTS, UTF8 = "texts", "utf8"  # the kind of an entry of texts, and the name of their bytes
ERRORS = "errors"  # noted in shards: by name the largest error of a form, in the values' unit


@dataclass(frozen=True)
class Parts:
    """A signal as it is kept: taken apart by its codec, in a form.

    Attributes:
        values: tensors with a row for each of its rows, by name; ``shared``: those without.
        signal: what the values are; ``about``: the largest errors of the form.
    """

    values: dict[str, Tensor]
    shared: dict[str, Tensor]
    signal: dict[str, Any]
    about: dict[str, Any]

    @classmethod
    def of(cls, value: Tensor | Lazy, form: str = forms.EXACT) -> Parts:
        """Take a signal apart. MeshError for values that the form cannot hold."""
        kind, parts, shared = codecs.keep(value)
        columns = int(shared[COLUMNS]) if COLUMNS in shared else None
        kept, types, errors = forms.encode(parts, form, columns)
        alike, shared_types, off = forms.encode(shared, form if form in forms.FLOATS else forms.EXACT)
        signal: dict[str, Any] = {"kind": kind, "form": form, "types": {**types, **shared_types}}
        signal |= {OPTIONAL: list(value.optional)} if isinstance(value, Lazy) and value.optional else {}
        return cls(kept, alike, signal, {ERRORS: {**errors, **off}} if form != forms.EXACT else {})

    @property
    def value(self) -> Tensor | Lazy:
        """The signal with the form's errors, as :func:`read_signal` gives it."""
        return restored(self.values, self.shared, self.signal)

    @property
    def size(self) -> int:
        """Bytes of what there is for each row."""
        return sum(one.numel() * one.element_size() for one in self.values.values())

    def write(self, entry: Entry, rows: Tensor, starts: Tensor | None, fingerprint: Fingerprint, **more: Any) -> int:
        """Keep it; ``more``: `ids` and `round` of :meth:`Entry.write`."""
        _refuse_vocabulary(entry, self.shared)
        shared, signal, about = self.shared, self.signal, self.about
        return entry.write(rows, self.values, starts, fingerprint, shared=shared, signal=signal, about=about, **more)


def write_signal(
    entry: Entry,
    rows: Tensor,
    value: Tensor | Lazy,
    starts: Tensor | None,
    fingerprint: Fingerprint,
    *,
    form: str = forms.EXACT,
    ids: Tensor | None = None,
    round: int | None = None,
) -> int:
    """Keep a signal ``[n, ...]``, or one of many rows a sample; see :meth:`Entry.write` for the rest, and the errors.

    ``form``: one of :data:`kdmesh.store.forms.FORMS`, which the entry's key should say, too: an entry has one. A signal
    that no codec knows, a mixture say, is made whole.
    """
    return Parts.of(value, form).write(entry, rows, starts, fingerprint, ids=ids, round=round)


def _refuse_vocabulary(entry: Entry, shared: Mapping[str, Tensor]) -> None:
    """MeshError where the columns of some outputs are told apart among so many, and were among others in this entry."""
    entry.refresh()
    if COLUMNS not in shared or not entry.shards:
        return
    there = re.search(r"\bcolumns (\d+)", entry.shards[0].about.get(SHARED, {}).get("is", ""))
    if there and int(there[1]) != (now := int(shared[COLUMNS])):
        raise MeshError(
            f"top-k of a head whose vocabulary changed: it has {now:,} columns, and had {int(there[1]):,}",
            where=f"entry {entry.name} of the store",
            instead="a key that says which head it is: `kdmesh store show` prints this one's",
        )


def read_signal(entry: Entry, rows: Tensor, round: Round = None) -> tuple[Tensor | Lazy, Tensor | None]:
    """The signal of rows that were found, in this order, and where each sample's begin.

    KeyError for others; RunFailed for what its codec cannot restore, as a plugin's that is another by now. What all
    rows share, as a layer, is mapped: nobody may change it in place.
    """
    found = entry.rows(rows, round)
    if not found.signal:
        raise KeyError("these rows are no signal: read() gives their values")
    try:
        return restored(found.values, found.shared, found.signal), found.starts
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunFailed(
            f"entry {entry.name} of the store cannot be restored as {found.signal['kind']}: {reason(error)}",
            instead="run with --store off, or delete this folder: " + str(entry.folder),
        ) from error


def restored(values: dict[str, Tensor], shared: dict[str, Tensor], signal: dict[str, Any]) -> Tensor | Lazy:
    """A signal of its parts, as :meth:`Entry.rows` gives them."""
    return codecs.restore(signal["kind"], forms.decode({**values, **shared}, signal["types"]))


def write_texts(
    entry: Entry,
    rows: Tensor,
    texts: Sequence[str],
    fingerprint: Fingerprint,
    *,
    ids: Tensor | None = None,
    round: int | None = None,
) -> int:
    """Keep what was written to samples, a text each; see :meth:`Entry.write`. They come back character by character."""
    data = [text.encode("utf-8", "surrogatepass") for text in texts]
    starts = torch.tensor([0, *map(len, data)]).cumsum(0)
    values = torch.from_numpy(np.frombuffer(b"".join(data), np.uint8).copy())
    signal = {"kind": TEXTS, "form": forms.EXACT, "types": {}}
    return entry.write(rows, {UTF8: values}, starts, fingerprint, ids=ids, round=round, signal=signal)


def read_texts(entry: Entry, rows: Tensor, round: Round = None) -> list[str]:
    """The texts of rows that were found, in this order. KeyError for others, and in an entry without texts."""
    found = entry.rows(rows, round)
    if not found.values and not len(rows):
        return []
    if found.signal.get("kind") != TEXTS or found.starts is None:
        raise KeyError("these rows are no texts: read_signal() gives their values")
    data, ends = found.values[UTF8].numpy().tobytes(), found.starts.tolist()
    return [_text(data[begin:end]) for begin, end in pairwise(ends)]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def of_sample(shard: Shard, at: int) -> dict[str, Any]:
    """What a shard says of the sample at a place, by name of part, as numbers in the values' own type, or a text.

    A part is one row, or many. What all rows share is left out.
    """
    starts, signal = shard.starts, shard.about.get(SIGNAL) or {}
    rows = np.array([at]) if starts is None else np.arange(*starts[at : at + 2])
    kept = {name: shard.take(name, rows) for name in sorted(shard.parts)}
    if signal.get("kind") == TEXTS:
        return {"text": _text(kept[UTF8].numpy().tobytes())}
    values = forms.decode(kept, signal.get("types", {}))
    return {name: (one[0] if starts is None else one).tolist() for name, one in values.items()}
