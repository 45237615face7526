"""Who answered: an entry of the store, by its key, or by a module whose answers it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kdmesh.errors import MeshError
from kdmesh.hosts.identity import Unknown
from kdmesh.hosts.store_keys import alone
from kdmesh.loops.samples import WHERE, Kind
from kdmesh.store import EntryKey, Store, default_root
from kdmesh.store.store import OFF

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

ONE = "it"  # the name of a producer that has none
WHICH = "the first digits of an entry's name, as `kdmesh store ls` lists them"


@dataclass(frozen=True)
class Producer:
    """One producer's entry.

    Attributes:
        name: what the caller calls it.
        key: of the entry.
        info: what was noted beside the key: the agent and the mesh that asked first.
        module: what can answer, where the caller gave it.
    """

    name: str
    key: EntryKey
    info: Mapping[str, Any]
    module: nn.Module | None = None

    @property
    def history(self) -> bool:
        """Whether it is what was said in rounds."""
        return "history" in self.key.producer

    @property
    def labels(self) -> list[int] | None:
        """The classes that its columns stand for, where it knows some alone."""
        return self.key.signal.get("classes") if self.history else self.key.producer.get("labels")

    @property
    def form(self) -> str:
        """What its answers are, as objectives call it."""
        signal = self.key.signal
        layer = signal.get("output") and "made" not in signal
        return str(signal.get("space", "hidden" if layer else "logits"))

    def __str__(self) -> str:
        known = [f"{word} {self.info[word]}" for word in ("agent", "mesh") if self.info.get(word)]
        if self.history:
            known.append(f"history of {self.key.producer['history']}")
        called = f"{self.name}, " if self.name != ONE else ""
        who = f" ({', '.join(known)})" if known else ""
        return f"{called}entry {self.key.digest[:12]}{who}"


def opened(store: Store | str | Path | None) -> Store:
    """The store that is meant; None: the default one. MeshError where it is switched off."""
    if isinstance(store, Store):
        return store
    where = default_root() if store is None else store
    if where is None or str(where) == OFF:
        raise MeshError("the store is switched off", where="store", instead="store=, the folder or URL of a store")
    return Store.open(where)


def producers(given: Any, store: Store, sample: Tensor | None, forward_size: int) -> list[Producer]:
    """Those of ``given``: one, or several by name. ``sample``: one of the data, for modules.

    MeshError for an entry that is not there, or cannot be found by what a sample is.
    """
    each = given if isinstance(given, Mapping) else {ONE: given}
    if not each:
        raise MeshError("no producer", where=WHERE, instead=f"{WHICH}; several by name: {{'t1': KEY}}")
    found = [_producer(str(name), one, store, sample, forward_size) for name, one in each.items()]
    for one in found:
        if one.key.producer.get("view"):
            views = ", ".join(str(view.get("name")) for view in one.key.producer["view"])
            raise MeshError(
                f"{one} answered to views of samples ({views}), which are found by a mesh's seed and sample ids",
                where=WHERE, instead="an entry of answers to samples as they are: a mesh without `view` makes one",
            )  # fmt: skip
    return found


def _producer(name: str, given: Any, store: Store, sample: Tensor | None, forward_size: int) -> Producer:
    if isinstance(given, nn.Module):
        if sample is None:
            what = "a module is asked about numbers, and these are texts"
            raise MeshError(what, where=WHERE, instead=f"{WHICH}; a run, or `kdmesh label`, fills it")
        told = {"dtype": str(sample.dtype), "shape": list(sample.shape)}
        try:
            key = alone(given, told, forward_size)
        except Unknown as why:
            what = f"the answers of this {type(given).__name__} cannot be kept: {why}"
            raise MeshError(what, where=WHERE, instead="answers of a module that a file defines") from None
        return Producer(name, key, {"agent": name if name != ONE else type(given).__name__}, given)
    if isinstance(given, EntryKey):
        return Producer(name, given, {})
    if not isinstance(given, str):
        what = f"found {type(given).__name__}"
        several = ", or several by name, {'a': ..., 'b': ...}"
        raise MeshError(what, where=WHERE, instead=f"{WHICH}; or the module that answers{several}")
    info = store.find(given)
    if info.key is None:
        raise MeshError(f"cannot be read: {info.fault}", where=WHERE, file=info.digest[:12], instead="another entry")
    return Producer(name, info.key, info.info)


def kind_of(found: list[Producer], sample: Tensor | None) -> Kind:
    """Of what samples all these are. MeshError where they differ.

    ``sample``: one of the data, for histories, whose keys do not say.
    """
    kinds = {}
    for one in found:
        if one.history and "input" not in one.key.producer:
            if sample is None:
                raise MeshError(f"{one} is a history of answers to texts, which are found in meshes", where=WHERE)
            kinds[str(one)] = Kind(str(torch.float32), tuple(sample.shape))
        else:
            kinds[str(one)] = Kind.of(one.key.producer.get("input"))
    (first, kind), *others = kinds.items()
    for name, other in others:
        if other != kind:
            what = f"{first} answered to {kind}, {name} to {other}"
            told = f"{what}{', read by another tokenizer' if str(kind) == str(other) else ''}"
            raise MeshError(told, where=WHERE, instead="producers of one kind of samples")
    return kind
