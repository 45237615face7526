"""A map-style data set whose items have targets from the store, for a training loop of one's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdmesh.errors import MeshError
from kdmesh.loops.collator import TARGETS, UNITS
from kdmesh.loops.filling import Filler
from kdmesh.loops.producers import ONE, Producer, kind_of, opened, producers
from kdmesh.loops.rules import Combining
from kdmesh.loops.samples import WHERE, Samples
from kdmesh.signals.lazy import Lazy
from kdmesh.store import Entry, Fingerprint, Found, Store
from kdmesh.store.entry import Newest, Round
from kdmesh.store.signals import read_signal
from kdmesh.text.tokenizers import numbered

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from kdmesh.store import EntryKey
    from kdmesh.streams.tokens import Row

MISSING = ("raise", "skip", "fill")
CHUNK = 4096  # items that are looked up at a time


def targets(
    dataset: Any,
    producer: str | EntryKey | nn.Module | Mapping[str, str | EntryKey | nn.Module],
    *,
    store: Store | str | Path | None = None,
    rule: Any = None,
    temperature: float | None = None,
    space: str = "probs",
    missing: str = "raise",
    sample: Any = None,
    tokenizer: Any = None,
    labels: Sequence[int] | None = None,
    round: int | None = None,
    forward_size: int = 64,
) -> Targets:
    """Give each item of a data set what the store has of it: targets for any training loop, without a mesh.

    An item is found by its content, as the producer was given it, and looked up anew each time: shuffling, subsets,
    batch sizes and workers do not matter, and an item whose values changed is an error, never another item's target.

    Args:
        dataset: map-style, with ``len`` and items by number: ``(x, ...)``, ``x`` alone, or by name. Numbers stand in
            ``x`` or ``pixel_values``, token ids in ``input_ids``, with ``attention_mask`` and ``labels`` if there are.
        producer: who answered: the first digits of an entry's name (`kdmesh store ls`), a key, or a module whose
            weights and code are hashed. Several by name: ``{"t1": KEY, "t2": KEY}``.
        store: a folder, URL or open store; by default the one that runs use.
        rule: a consensus rule over several producers, by name, by name with settings, or itself. Without one items get
            each producer's targets by its name.
        temperature: at which ``rule`` combines probabilities: that of the loss.
        space: in which ``rule`` combines, ``"probs"`` or ``"logits"``; it is the form of the target then.
        missing: items without an answer are an error (``"raise"``), left out (``"skip"``), or asked of the module
            and kept (``"fill"``).
        sample: a function that gives of an item what the producer was given, where the item has it another way, as
            with an augmentation of the student's own.
        tokenizer: of texts, the one that made the token ids. It is held to the entry's.
        labels: the classes that the columns stand for, where the producer knows some alone.
        round: of a history; by default each sample's newest.
        forward_size: of a module, as the mesh's that shares its answers (its ``batch_size``, unless it says).

    Raises:
        MeshError: for an entry that is not there, or of other data, and for items without an answer, with how many.
    """
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        what = f"{type(dataset).__name__} cannot be read by number"
        raise MeshError(what, where=WHERE, instead="a data set with __len__ and __getitem__")
    if sample is not None and not callable(sample):
        raise MeshError(f"found {type(sample).__name__}", where="sample", instead="a function of an item")
    if missing not in MISSING:
        raise MeshError(f"found {missing!r}", where="missing", instead=", ".join(MISSING))
    if not len(dataset):
        raise MeshError(f"{type(dataset).__name__} is empty", where=WHERE, instead="a data set with items")
    place = opened(store)
    first = _numbers(dataset[0], sample)
    found = producers(producer, place, first, forward_size)
    _refuse_others(found, missing, labels, round)
    samples = Samples(kind_of(found, first), sample)
    _refuse_tokenizer(found, samples, tokenizer)
    whole = Targets(dataset, found, place, samples, Newest() if round is None else round)
    lacking = whole.look(missing == "fill", forward_size)
    whole.notes += [*place.notes, *whole.elsewhere()]
    if lacking and missing != "skip":
        raise _missing(whole, lacking, missing)
    if lacking:
        whole.leave_out(lacking)
    if len(forms := {one.form for one in found}) > 1 or (rule is not None and forms != {"logits"}):
        what = f"producers answered with {' and '.join(sorted(forms))}"
        raise MeshError(what, where=WHERE, instead="logits of each; a consensus of a history is combined already")
    if rule is not None:
        columns = whole.answers([0])[0][0].shape[-1]
        whole.combining = Combining(rule, [one.name for one in found], columns, temperature, space)
    elif temperature is not None:
        what = "it is at which a rule combines"
        raise MeshError(what, where="temperature", instead="the loss's own temperature: targets are logits")
    for note in whole.notes:
        print(f"kdmesh: note: {note}", file=sys.stderr)
    return whole


class Targets(Dataset[Any]):
    """See :func:`targets`. Items are those of the data set with ``targets``, of a tuple as the last part.

    ``form``: what targets are, for an objective's `form`: `logits`, `probs`, or `hidden`; ``temperature``: of `probs`,
    else None. ``notes``: what was noticed, as rows that another machine computed; they are printed to stderr, too.
    ``left_out``: the numbers of items without an answer. With :class:`kdmesh.loops.collator.TargetsCollator` a
    DataLoader reads a batch at once.
    """

    def __init__(self, dataset: Any, found: list[Producer], store: Store, samples: Samples, round: Round) -> None:
        self.dataset, self.producers, self.samples = dataset, found, samples
        self.combining: Combining | None = None
        self.left_out: list[int] = []
        self.notes: list[str] = []
        self._foreign: dict[str, int] = {}  # rows that were computed elsewhere, by what differs there
        self._at: list[int] | None = None  # the items that have an answer; None: all
        self._round, self._place = round, store.place
        self._here = Fingerprint.here()  # of this process: its workers prefer the same rows
        self._store: Store | None = store
        self._entries: list[Entry] | None = None

    def __repr__(self) -> str:
        left = f", {len(self.left_out)} left out" if self.left_out else ""
        return f"<Targets: {len(self)} items{left}, {self.form} of {'; '.join(map(str, self.producers))}>"

    def __len__(self) -> int:
        return len(self.dataset) if self._at is None else len(self._at)

    @property
    def form(self) -> str:
        """What targets are, as objectives call it."""
        if self.combining is not None:
            return self.combining.space
        return self.producers[0].form

    @property
    def temperature(self) -> float | None:
        """At which a target in form `probs` is: that of the loss. None for others."""
        if self.combining is not None:
            return self.combining.temperature if self.combining.space != "logits" else None
        return self.producers[0].key.signal.get("temperature")

    def __getitem__(self, at: int) -> Any:
        if not -len(self) <= at < len(self):
            raise IndexError(f"item {at} of {len(self)}")
        return self.__getitems__([at % len(self)])[0]

    def __getitems__(self, at: Sequence[int]) -> list[Any]:
        """Items by their numbers: what a DataLoader asks for of a batch."""
        items, values, units = self._read([self._number(int(one)) for one in at])
        told = self._told(values, units)
        every: Sequence[Tensor | None] = [None] * len(items) if units is None else units
        return [_with(*one) for one in zip(items, told, every, strict=True)]

    def answers(self, at: Sequence[int]) -> list[list[Any]]:
        """What each producer says of items, by producer and item."""
        return self._read([self._number(one) for one in at])[1]

    def _number(self, at: int) -> int:
        return at if self._at is None else self._at[at]

    def leave_out(self, numbers: list[int]) -> None:
        """Leave items out, by their numbers in the data set."""
        gone = set(numbers)
        self.left_out, self._at = numbers, [one for one in range(len(self.dataset)) if one not in gone]
        if not self._at:
            raise _missing(self, numbers, "skip")

    def look(self, fill: bool, forward_size: int) -> list[int]:
        """Look every item up once; return the numbers of those without an answer.

        ``fill``: ask the modules for what is not there, and keep it.
        """
        pairs = list(zip(self.producers, self.entries(), strict=True))
        fillers = [Filler(one, entry, forward_size) for one, entry in pairs] if fill else []
        lacking: list[int] = []
        for start in range(0, len(self.dataset), CHUNK):
            numbers = list(range(start, min(start + CHUNK, len(self.dataset))))
            items = _items(self.dataset, numbers)
            rows = self.samples.digests(items, numbers)[0]
            there = torch.ones(len(items), dtype=torch.bool)
            for number, entry in enumerate(self.entries()):
                told = self._told_of(number, entry, rows)
                found = told.found
                if told.elsewhere:
                    what = "; ".join(one.differs(self._here) for one in told.elsewhere)
                    self._foreign[what] = self._foreign.get(what, 0) + int(told.foreign.sum())
                if fillers and not bool(found.all()):
                    at = (~found).nonzero()[:, 0]
                    x = self.samples.numbers([items[one] for one in at.tolist()], [numbers[one] for one in at.tolist()])
                    fillers[number](x, rows[at], torch.tensor(numbers)[at])
                else:
                    there &= found
            lacking += [numbers[one] for one in (~there).nonzero()[:, 0].tolist()]
        return lacking

    def _found(self, number: int, entry: Entry, rows: Tensor) -> Tensor:
        return self._told_of(number, entry, rows).found

    def _told_of(self, number: int, entry: Entry, rows: Tensor) -> Found:
        return entry.find(rows, self._here, self._round if self.producers[number].history else None)

    def elsewhere(self) -> list[str]:
        """In words, how many answers were computed on another machine, or with other settings."""
        return [f"{count} answers were computed elsewhere ({what})" for what, count in self._foreign.items()]

    def _read(self, numbers: list[int]) -> tuple[list[Any], list[list[Any]], list[Tensor] | None]:
        """Items, each producer's values of them, and the units that these are for."""
        items = _items(self.dataset, numbers)
        rows, texts = self.samples.digests(items, numbers)
        values: list[list[Any]] = []
        units: list[Tensor] | None = None
        for number, (one, entry) in enumerate(zip(self.producers, self.entries(), strict=True)):
            found = self._found(number, entry, rows)
            if not bool(found.all()):
                gone = numbers[int((~found).nonzero()[0])]
                raise MeshError(
                    f"item {gone} is not what it was when it was looked up: {one} has no answer to it now",
                    where=WHERE, instead="items that stay the same, or sample=, which gives of an item what had one",
                )  # fmt: skip
            value, starts = read_signal(entry, rows, self._round if one.history else None)
            own = None if starts is None else _units(texts, starts, one)
            if number and (own is None) != (units is None):
                raise MeshError("some producers answer by sample, others by token", where=WHERE, instead="one kind")
            units = own
            values.append(_each(value, starts))
        return items, values, units

    def _told(self, values: list[list[Any]], units: list[Tensor] | None) -> list[Any]:
        """The target of each item."""
        if self.combining is not None:
            flat = [torch.cat([_flat(one, units) for one in own]) for own in values]
            combined = self.combining(flat)
            if units is None:
                return list(combined)
            return list(combined.split([len(one) for one in units]))
        if len(values) == 1 and self.producers[0].name == ONE:
            return values[0]
        names = [one.name for one in self.producers]
        return [dict(zip(names, own, strict=True)) for own in zip(*values, strict=True)]

    def entries(self) -> list[Entry]:
        """The producers' entries, open in this process."""
        if self._entries is None:
            if self._store is None:
                self._store = Store.open(self._place)
            self._entries = [self._store.entry(one.key, one.info) for one in self.producers]
        return self._entries

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open, and without modules: a worker opens the store for itself."""
        bare = [Producer(one.name, one.key, one.info) for one in self.producers]
        return {**self.__dict__, "_store": None, "_entries": None, "producers": bare}

    def rounds(self) -> str:
        """In words, which round is asked for and which there are; nothing where there are none."""
        if not isinstance(self._round, int) or not any(one.history for one in self.producers):
            return ""
        there = {shard.round for entry in self.entries() for shard in entry.shards if shard.round is not None}
        return f", in round {self._round} (there are {', '.join(map(str, sorted(there))) or 'none'})"

    @property
    def place(self) -> str:
        """The store's folder or URL."""
        return self._place


def _items(dataset: Any, numbers: list[int]) -> list[Any]:
    if hasattr(dataset, "__getitems__"):
        return list(dataset.__getitems__(numbers))
    return [dataset[one] for one in numbers]


def _with(item: Any, target: Any, units: Tensor | None) -> Any:
    """An item with its target."""
    if isinstance(item, Mapping):
        return {**item, TARGETS: target} if units is None else {**item, TARGETS: target, UNITS: units}
    if units is not None:
        return {"input_ids": item, TARGETS: target, UNITS: units}
    return (*item, target) if isinstance(item, tuple | list) else (item, target)


def _units(texts: list[Row] | None, starts: Tensor, one: Producer) -> list[Tensor]:
    """For which of each text's tokens there are rows: those that are asked, or, of a layer, all."""
    counts, rows = (starts[1:] - starts[:-1]).tolist(), texts or []
    if counts == [len(row.units) for row in rows]:
        return [torch.tensor(row.units, dtype=torch.int64) for row in rows]
    if counts == [len(row.ids) for row in rows]:
        return [torch.arange(count) for count in counts]
    what = f"{one} has another number of answers to a sample than it has tokens that are asked"
    raise MeshError(what, where=WHERE, instead="an entry of logits")


def _each(value: Tensor | Lazy, starts: Tensor | None) -> list[Any]:
    """The values of each sample. What many rows share, as a wide layer, does not travel: these are made."""
    if isinstance(value, Lazy) and any(
        part.numel() > 1 for name, part in (value.keep() or {}).items() if name in value.shared
    ):
        value = value.dense()
    if starts is None:
        return (
            list(value) if isinstance(value, Tensor) else [value.take(at) for at in torch.arange(len(value))[:, None]]
        )
    if isinstance(value, Tensor):
        return [value[begin:end] for begin, end in pairwise(starts.tolist())]
    return [value.take(torch.arange(begin, end)) for begin, end in pairwise(starts.tolist())]


def _flat(value: Any, units: list[Tensor] | None) -> Tensor:
    rows: Tensor = value.dense() if isinstance(value, Lazy) else value
    return rows[None] if units is None and not isinstance(value, Lazy) else rows


def _numbers(item: Any, sample: Any) -> Tensor | None:
    """The first sample as numbers, float32 as a mesh's are; None for a text."""
    told = sample(item) if callable(sample) else item
    if isinstance(told, Mapping):
        told = next((told[name] for name in ("pixel_values", "x") if name in told), None)
    elif isinstance(told, tuple | list) and sample is None:
        told = told[0]
    try:
        value = torch.as_tensor(told)
    except (TypeError, ValueError, RuntimeError):
        return None
    return value.float()


def _refuse_others(found: list[Producer], missing: str, labels: Sequence[int] | None, round: int | None) -> None:
    """MeshError for answers that are not what the caller takes them for."""
    for one in found:
        if missing == "fill" and one.module is None:
            what = f"{one} is a key, which answers nothing"
            raise MeshError(what, where="missing", instead="the module itself in its place; or `kdmesh label FILE`")
        if round is not None and not one.history:
            raise MeshError(f"{one} has no rounds", where="round", instead="a history, or no `round`")
        given = None if labels is None else list(labels)
        if one.labels != given:
            known = "all classes" if one.labels is None else f"the classes {one.labels} alone, in this order"
            instead = "no `labels`" if one.labels is None else f"labels={one.labels}, and a student with these columns"
            raise MeshError(f"{one} answers for {known}", where="labels", instead=instead)


def _refuse_tokenizer(found: list[Producer], samples: Samples, tokenizer: Any) -> None:
    """MeshError for token ids that may be those of another tokenizer."""
    if not samples.kind.text:
        if tokenizer is not None:
            raise MeshError(f"{found[0]} answered to {samples.kind}", where="tokenizer", instead="no tokenizer")
        return
    if not hasattr(tokenizer, "get_vocab"):
        what = "token ids alone do not say which words they are" if tokenizer is None else "this is no tokenizer"
        raise MeshError(what, where="tokenizer", instead="tokenizer=, the one of transformers that made them")
    if numbered(tokenizer) != samples.kind.numbers:
        count = found[0].key.producer["input"].get("tokens")
        what = (
            f"{found[0]} read with another tokenizer: its {count} tokens have other numbers than these {len(tokenizer)}"
        )
        raise MeshError(what, where="tokenizer", instead="the producer's own tokenizer, or an entry of this one")


def _missing(whole: Targets, lacking: list[int], missing: str) -> MeshError:
    """How many items have no answer, the first of them, and what fills the store."""
    count, kind = len(whole.dataset), whole.samples.kind
    who = "; ".join(map(str, whole.producers)) + whole.rounds()
    how = "missing='fill', which asks the module"
    if any(one.module is None for one in whole.producers):
        asked = [str(one.info.get("agent", "AGENT")) for one in whole.producers if "mesh" in one.info]
        agents = ",".join(dict.fromkeys(asked))
        how = f"`kdmesh label FILE --agents {agents}`, or `kdmesh run FILE`, which fill the store"
        if any(one.history for one in whole.producers):
            how = "the samples and a round that a run kept: `kdmesh store show KEY`"
        elif not asked:  # a loop kept them, which had the module
            how = "the module itself in place of its entry's name, with missing='fill', which asks it"
    if len(lacking) == count:
        what = f"none of {count} items has an answer by {who}"
        instead = f"the {kind} that it answered, found by their values, as they were prepared there; or {how}"
        if all(one.module is not None for one in whole.producers):
            instead = f"weights, code, forward_size= and {kind} as they were when these were kept; or {how}"
    else:
        what = f"{len(lacking)} of {count} items have no answer, the first is item {lacking[0]}, by {who}"
        instead = how if missing == "skip" else f"{how}; or missing='skip'"
    return MeshError("; ".join([what, *whole.notes]), where=WHERE, file=whole.place, instead=instead)
