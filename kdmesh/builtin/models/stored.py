"""What the store has of an agent, or of a consensus by its history, as a model: it looks each sample up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.builtin.models.offers import StoredConfig
from kdmesh.errors import MeshError
from kdmesh.store import Entry, EntryInfo, Fingerprint, Store, default_root
from kdmesh.store.entry import Newest, Round
from kdmesh.store.signals import read_signal
from kdmesh.store.using import shared
from kdmesh.streams.contents import digests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WHERE = "model.stored"
LOGITS = "an entry of logits, as `kdmesh store ls` lists them"


class Stored(nn.Module):
    """Looks the answers to samples up by their content, in one entry of the store; it has no weights.

    ``forward(x [B, ...]) -> logits [B, classes]``, float32. Of probabilities at a temperature T, which a history may
    have, these are ``T * log p``, so that ``softmax(logits / T)`` is what was kept; a probability of 0 counts as the
    smallest normal number. MeshError for a sample without an answer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        entry: str,
        round: int | None = None,
        store: Path | str | None = None,
    ) -> None:
        """``round``, ``store``: see :class:`StoredConfig`. MeshError for an entry that is not there, or of others."""
        super().__init__()
        self.place, self.classes = str(store or default_root() or ""), classes
        info = _found(self.place, entry)
        assert info.key is not None
        self.key, self.info, self.round = info.key, info.info, round
        told = self.key.producer.get("input")
        shape = told.get("shape") if isinstance(told, dict) else None
        if shape is not None and list(shape) != list(input_shape):
            raise MeshError(
                f"{_named(info)} answered to samples of shape {list(shape)}, and these have {list(input_shape)}",
                where=f"{WHERE}.entry", instead="an entry of these data",
            )  # fmt: skip
        self._opened: Entry | None = None
        self._elsewhere: dict[str, None] = {}  # in words, on what answers were computed that another machine made
        self._lock = shared(self.entry.folder)  # from now on nobody deletes it

    @property
    def entry(self) -> Entry:
        """The entry, open in this process."""
        if self._opened is None:
            self._store = Store.open(self.place)
            self._opened = self._store.entry(self.key, self.info)
        return self._opened

    @property
    def notes(self) -> list[str]:
        """What was noticed: shards that are damaged, and, of samples that were looked for, answers of elsewhere."""
        told = [f"answers were computed elsewhere ({how}): bits may differ from here" for how in self._elsewhere]
        return told if self._opened is None else [*told, *self._store.notes]

    def lacking(self, x: Tensor) -> Tensor:
        """The samples of ``x [n, ...]`` that have no answer, ``[n]`` bool."""
        here = Fingerprint.here(threads=1)  # how many does not matter to whoever only reads
        told = self.entry.find(digests(x.detach()), here, self._round)
        for other in told.elsewhere:
            if how := replace(other, threads=1).differs(here):
                self._elsewhere[how] = None
        return ~told.found

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        if x.is_meta:
            return torch.empty(len(x), self.classes, device="meta")
        rows = digests(x.detach())
        found = self.entry.find(rows, Fingerprint.here(), self._round).found
        if not bool(found.all()):
            raise MeshError(
                f"{int((~found).sum())} of {len(x)} samples have no answer in entry {self.key.digest[:12]}",
                file=self.place, where=WHERE, instead="the samples that were answered, bit for bit",
            )  # fmt: skip
        value, starts = read_signal(self.entry, rows, self._round)
        if not isinstance(value, Tensor) or starts is not None or value.shape[1:] != (self.classes,):
            kind = type(value).__name__ if not isinstance(value, Tensor) else f"{list(value.shape[1:])} values"
            raise MeshError(
                f"entry {self.key.digest[:12]} has {kind} for a sample, and the task asks for {self.classes}",
                file=self.place, where=f"{WHERE}.entry", instead="an entry of logits for these classes",
            )  # fmt: skip
        value = value.float()
        if self.key.signal.get("space") == "probs":
            value = self.key.signal["temperature"] * value.clamp_min(torch.finfo(value.dtype).tiny).log()
        return value.to(x.device)

    def extra_repr(self) -> str:
        """The entry, in words."""
        return f"entry={self.key.digest[:12]}" + ("" if self.round is None else f", round={self.round}")

    @property
    def _round(self) -> Round:
        if "history" not in self.key.producer:
            return None
        return Newest() if self.round is None else Newest(self.round + 1)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: a copy opens the store for itself."""
        return {name: one for name, one in self.__dict__.items() if name != "_store"} | {"_opened": None, "_lock": None}


def settle(config: dict[str, Any], store: str, labels: Sequence[int] | None) -> dict[str, Any]:
    """Settings with the entry's whole name, the round after which it is read, and where the store is.

    ``store``: the run's, "" for none; ``labels``: the classes of the agent that answers. MeshError for an entry that
    is not there, damaged, or whose answers are no logits of samples of numbers for these classes.
    """
    asked = StoredConfig.model_validate(config)
    place = str(asked.store or store)
    info = _found(place, asked.entry)
    assert info.key is not None
    history = "history" in info.key.producer
    why = _unfit_history(info.key.signal) if history else _unfit(info.key.producer, info.key.signal)
    if why:
        raise MeshError(f"{_named(info)} {why}", file=place, where=f"{WHERE}.entry", instead=LOGITS)
    known = info.key.signal.get("classes") if history else info.key.producer.get("labels")
    if known != (None if labels is None else list(labels)):
        told = "all classes" if known is None else f"the classes {known} alone, in this order"
        instead = "leave `labels` out" if known is None else f"labels: {known}"
        raise MeshError(f"{_named(info)} answers for {told}", file=place, where="labels", instead=instead)
    return {"entry": info.digest, **_rounds(info, asked, place), "store": place}


def _rounds(info: EntryInfo, asked: StoredConfig, place: str) -> dict[str, int]:
    """The round after which a history is read."""
    assert info.key is not None
    if "history" not in info.key.producer:
        if asked.round is not None:
            raise MeshError(f"{_named(info)} has no rounds", file=place, where=f"{WHERE}.round",
                            instead="a history, or no `round`")  # fmt: skip
        return {}
    store = Store.open(place)
    entry = store.entry(info.key, info.info)
    entry.refresh()
    there = sorted({one.round for one in entry.shards if one.round is not None})
    store.close()
    if not there:
        what = "; ".join([f"{_named(info)} has no round that can be read", *store.notes])
        raise MeshError(what, file=place, where=f"{WHERE}.entry", instead="another entry, or the run that made it anew")
    if asked.round is not None and asked.round not in there:
        what = f"{_named(info)} has no round {asked.round}"
        raise MeshError(what, file=place, where=f"{WHERE}.round", instead=f"one of {', '.join(map(str, there))}")
    return {"round": there[-1] if asked.round is None else asked.round}


def _unfit(producer: Any, signal: Any) -> str:
    """Why the answers of an agent cannot be an agent's here; "" where they can."""
    told = producer.get("input")
    if not isinstance(told, dict) or "shape" not in told:
        return "has answers to texts, which are found by their tokens, and no model here reads those"
    if producer.get("view"):
        views = ", ".join(str(view.get("name")) for view in producer["view"])
        return f"answered to views of samples ({views}), which are found by a mesh's seed and sample ids"
    if signal.get("output") or "made" in signal:
        made = signal.get("made")
        what = f"the signal {made.get('name')}" if isinstance(made, dict) else f"the layer {signal.get('output')}"
        return f"has {what}, and no logits"
    return ""


def _unfit_history(signal: Any) -> str:
    """The same of a history."""
    space = signal.get("space")
    if signal.get("output") or space not in ("logits", "probs"):
        return f"is a history of {signal.get('output') or space}, which are no logits, nor of one distribution"
    if space == "probs" and not isinstance(signal.get("temperature"), int | float):
        return "is a history of probabilities at no temperature"
    return ""


def _found(place: str, entry: str) -> EntryInfo:
    """An entry by its first digits. MeshError where there is none, where several begin so, and for a damaged one."""
    if not place:
        raise MeshError("the store is switched off", where=WHERE, instead="--store DIR, or `store: DIR` beside `entry`")
    try:
        info = Store.open(place).find(entry)
    except MeshError as error:
        error.where = f"{WHERE}.entry"
        raise
    if info.key is None:
        what = f"entry {info.digest[:12]} is damaged: {info.fault}"
        raise MeshError(what, file=place, where=f"{WHERE}.entry", instead="another entry, or the run that made it anew")
    return info


def _named(info: EntryInfo) -> str:
    """An entry in words: its digits, and whose it is."""
    assert info.key is not None
    who = info.info.get("agent") or info.key.producer.get("history")
    mesh = info.info.get("mesh")
    return f"entry {info.digest[:12]}" + (f" ({who}{f' of {mesh}' if mesh else ''})" if who else "")
