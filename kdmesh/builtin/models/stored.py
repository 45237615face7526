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
from kdmesh.store.key import MEASURED
from kdmesh.store.signals import read_signal
from kdmesh.store.using import shared
from kdmesh.streams.contents import digests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kdmesh.store import EntryKey

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
        measured: str | None = None,
    ) -> None:
        """Look for the entry. MeshError where it is not there, or of other samples.

        ``round``, ``store``, ``measured``: see :class:`StoredConfig`.
        """
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
        self.beside: EntryKey | None = None  # of what it is measured by
        if measured is not None:
            self.beside = _beside(self.place, info, measured).key
        self._opened: list[Entry] = []
        self._elsewhere: dict[str, None] = {}  # in words, on what answers were computed that another machine made
        self._locks = [shared(one.folder) for one in self.entries]  # from now on nobody deletes them

    @property
    def entries(self) -> list[Entry]:
        """The entry, and the one for what the agent is measured on, if there is one: open in this process."""
        if not self._opened:
            self._store = Store.open(self.place)
            beside = [] if self.beside is None else [self._store.entry(self.beside)]
            self._opened = [self._store.entry(self.key, self.info), *beside]
        return self._opened

    @property
    def notes(self) -> list[str]:
        """What was noticed: shards that are damaged, and, of samples that were looked for, answers of elsewhere."""
        told = [f"answers were computed elsewhere ({how}): bits may differ from here" for how in self._elsewhere]
        return [*told, *self._store.notes] if self._opened else told

    @property
    def remedy(self) -> str:
        """What keeps the answers by which it would be measured, in words; "" where nothing does."""
        agent, mesh = self.info.get("agent"), self.info.get("mesh")
        if "history" in self.key.producer or not (agent and mesh):
            return ""
        return f"`kdmesh label FILE --agents {agent}`, of the file of {mesh}, keeps them where it is frozen there"

    def lacking(self, x: Tensor, measuring: bool = False) -> Tensor:
        """The samples of ``x [n, ...]`` that have no answer, ``[n]`` bool: to teach on, or to be measured on."""
        here = Fingerprint.here(threads=1)  # how many does not matter to whoever only reads
        rows, lacking = digests(x.detach()), torch.ones(len(x), dtype=torch.bool)
        for entry in self.entries if measuring else self.entries[:1]:
            told = entry.find(rows[lacking], here, self._round)
            for other in told.elsewhere:
                if how := replace(other, threads=1).differs(here):
                    self._elsewhere[how] = None
            lacking[lacking.clone()] = ~told.found
        return lacking

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        if x.is_meta:
            return torch.empty(len(x), self.classes, device="meta")
        rows = digests(x.detach())
        lacking, value = torch.ones(len(rows), dtype=torch.bool), torch.empty(len(rows), self.classes)
        for entry in self.entries:
            found = entry.find(rows[lacking], Fingerprint.here(), self._round).found
            if bool(found.any()):
                at = lacking.nonzero()[found, 0]
                value[at] = self._read(entry, rows[at])
                lacking[at] = False
            if not bool(lacking.any()):
                return value.to(x.device)
            if entry.damaged:  # else what is measured would stand in for what teaches
                break
        what = f"{int(lacking.sum())} of {len(x)} samples have no answer in entry {self.key.digest[:12]}"
        raise MeshError(
            "; ".join([what, *self._store.notes]),
            file=self.place, where=WHERE, instead="the samples that were answered, bit for bit",
        )  # fmt: skip

    def _read(self, entry: Entry, rows: Tensor) -> Tensor:
        """Logits ``[n, classes]`` of samples that an entry has. MeshError for values of another kind."""
        value, starts = read_signal(entry, rows, self._round)
        if not isinstance(value, Tensor) or starts is not None or value.shape[1:] != (self.classes,):
            kind = type(value).__name__ if not isinstance(value, Tensor) else f"{list(value.shape[1:])} values"
            raise MeshError(
                f"entry {entry.name} has {kind} for a sample, and the task asks for {self.classes}",
                file=self.place, where=f"{WHERE}.entry", instead="an entry of logits for these classes",
            )  # fmt: skip
        value = value.float()
        if self.key.signal.get("space") == "probs":
            value = self.key.signal["temperature"] * value.clamp_min(torch.finfo(value.dtype).tiny).log()
        return value

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
        return {name: one for name, one in self.__dict__.items() if name != "_store"} | {"_opened": [], "_locks": []}


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
    beside = None if asked.measured is None else _beside(place, info, asked.measured)
    if beside is None and not history:
        beside = next((one for one in Store.open(place).entries() if _measures(one, info, MEASURED)), None)
    measured = {} if beside is None else {"measured": beside.digest}
    return {"entry": info.digest, **_rounds(info, asked, place), "store": place, **measured}


def _beside(place: str, info: EntryInfo, named: str) -> EntryInfo:
    """The entry for what an agent is measured on. MeshError for one that is of another agent."""
    try:
        found = _found(place, named)
    except MeshError as error:
        error.where = f"{WHERE}.measured"
        raise
    if not _measures(found, info):
        raise MeshError(
            f"{_named(found)} is not of the agent that answered in {_named(info)}, or not its logits as computed",
            file=place, where=f"{WHERE}.measured", instead="the same agent in forwards of another size",
        )  # fmt: skip
    return found


def _measures(one: EntryInfo, info: EntryInfo, size: int | None = None) -> bool:
    """Whether an entry has the logits of another's agent as computed, in forwards of a size, None: of any other."""
    if one.key is None or info.key is None or one.digest == info.digest or "history" in info.key.producer:
        return False
    own, other = dict(one.key.producer), dict(info.key.producer)
    rows, _ = own.pop("forward_size", None), other.pop("forward_size", None)
    signal = {name: value for name, value in info.key.signal.items() if name != "form"}
    return own == other and dict(one.key.signal) == signal and (size is None or rows == size)


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
        what = f"entry {info.digest[:12]} cannot be read: {info.fault}"
        raise MeshError(what, file=place, where=f"{WHERE}.entry", instead="another entry, or the run that made it anew")
    return info


def _named(info: EntryInfo) -> str:
    """An entry in words: its digits, and whose it is."""
    assert info.key is not None
    who = info.info.get("agent") or info.key.producer.get("history")
    mesh = info.info.get("mesh")
    return f"entry {info.digest[:12]}" + (f" ({who}{f' of {mesh}' if mesh else ''})" if who else "")
