"""Answers from the store: an agent that does not train is asked for what is not there, and what it says is kept.

A row of the store is one sample as the agent is given it, in one view; what it is found by is in `store_keys.py`. All
rows that are missing are forwarded in groups of the agent's forward size, whose bits are those of a live answer:
`sound` looks whether that is so, before anything is kept.
"""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.graph.unkept import SEES_ANOTHER, of_private, of_written
from kdmesh.hosts.forms import parts
from kdmesh.hosts.identity import Unknown
from kdmesh.hosts.loader import ShardView
from kdmesh.hosts.looked_up import asks, looks_up
from kdmesh.hosts.placed import moves
from kdmesh.hosts.ragged import rows_of
from kdmesh.hosts.store_keys import entry_key, seeds_of
from kdmesh.signals.lazy import Lazy, joined, leaves, rebuild
from kdmesh.store import Fingerprint
from kdmesh.store.card import Damaged, read_card
from kdmesh.store.forms import EXACT
from kdmesh.store.signals import read_signal
from kdmesh.streams.contents import seen
from kdmesh.streams.tokens import ranges, starts_of
from kdmesh.streams.unread import Numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.loader import BatchSource
    from kdmesh.hosts.ragged import Value
    from kdmesh.hosts.shelf import Hits
    from kdmesh.hosts.state import HostState
    from kdmesh.store import Entry, EntryKey
    from kdmesh.store.signals import Parts

MADE = 2**25  # bytes of answers that are made before they are written
HIDDEN = 1024  # numbers of a hidden row, about
ROWS = 4096  # that are forwarded before they are written: what a kill can cost, and how large a shard is at most
SECONDS = "seconds"  # noted beside an entry's key: what a row took to compute
TABLES = 2**26  # bytes of an agent's answers that are in memory; of more the files are mapped
UNREAD = torch.empty(0)  # in the place of logits that nobody reads


def answers(
    host: HostState,
    one: Agent,
    shard: ShardView,
    names: tuple[str, ...],
    size: int,
    *,
    view: bool = False,
    form: str = EXACT,
    logits: bool = True,
) -> Value | None:
    """What an agent says of a whole stream; None where the store has no part in it.

    ``view``: as it sees samples; ``form``: that it is kept and read in; ``logits``: whether these are read, beside
    values by name.
    """
    found = stored(host, one, shard, names, size, view=view, form=form, logits=logits)
    return None if found is None else found(torch.arange(len(shard)))


def stored(
    host: HostState,
    one: Agent,
    shard: BatchSource,
    names: tuple[str, ...],
    size: int,
    *,
    view: bool = False,
    form: str = EXACT,
    logits: bool = True,
) -> Stored | None:
    """Where an agent's answers on a stream come from, if they are kept; else why not is noted."""
    shelf = host.shelf
    if shelf is None or looks_up(host, one) or asks(one) or (isinstance(shard, ShardView) and not len(shard)):
        return None
    if not isinstance(shard, ShardView):
        shelf.left.setdefault(one.name, of_written(shard.stream.name))
        return None
    try:
        return opened(host, one, shard, names, size, view=view, form=form, logits=logits)
    except Unknown as why:
        shelf.left.setdefault(one.name, str(why))
        return None


def opened(
    host: HostState,
    one: Agent,
    shard: ShardView,
    names: tuple[str, ...],
    size: int,
    *,
    view: bool,
    form: str,
    logits: bool = True,
) -> Stored:
    """An agent's answers on a stream, of a host that has a store. :class:`Unknown`, with why, if none are kept."""
    _refuse(host, one, shard, view)
    found = Stored(host, one, shard, names, size, view, form, logits or not names)
    if why := found.unsound():
        raise Unknown(why)
    return found


def still(host: HostState, one: Agent) -> bool:
    """Whether an agent's weights never change."""
    return host.plan.spec.agents[host.plan.owner[one.name]].update == "frozen"


def is_read(host: HostState, agent: str) -> bool:
    """Whether anybody reads an agent's logits, and not only what it makes of them; else they are not kept."""
    return any(edge.source == agent and not edge.forwarded for edge in host.plan.edges)


def _refuse(host: HostState, one: Agent, shard: ShardView, view: bool) -> None:
    """Answers that another run could not use, or must not have."""
    if shard.stream.private:
        raise Unknown(of_private(shard.stream.name))
    if one.name in host.plan.inputs:
        raise Unknown(SEES_ANOTHER)
    if view and one.view is not None and one.view.draws is None:
        raise Unknown("each epoch it sees new views of all samples; `view: {draws: 4}` counts them")


class Stored:
    """An agent's answers on one stream: read where the store has them, else forwarded and written."""

    def __init__(
        self,
        host: HostState,
        one: Agent,
        shard: ShardView,
        names: tuple[str, ...],
        size: int,
        view: bool,
        form: str,
        logits: bool,
    ) -> None:
        assert host.shelf is not None
        self._host, self._one, self._shard, self._names, self._size = host, one, shard, names, size
        self._shelf, self._view, self._form = host.shelf, one.view if view else None, form
        self._rows = size if isinstance(shard.x, Numbers) else rows_of(shard.x, size)
        settings = one.weights.settings
        self._fingerprint = Fingerprint.here(one.device, settings.threads)
        self._entries: dict[str, Entry] = {}
        for name in ("", *names) if logits else names:
            key = entry_key(host, one, shard, name, self._rows, view=self._view is not None, form=form)
            self._entries[name] = self._shelf.store.entry(key, {"agent": one.name, "mesh": host.plan.spec.name})
        self._digests = self._shelf.digests_of(shard)
        self._seed = seeds_of(host, one) if self._view is not None else 0
        self._hits, self._seconds = self._shelf.of(one.name), 0.0
        self._starts: dict[str, Tensor | None] = {}  # of rows among all, by name

    def unsound(self) -> str:
        """Why rows cannot be kept, "" where they can: asked of the agent itself where the store lacks some."""
        about = (self._one.name, *self._names, str(self._rows), str(self._view is not None))
        if about not in self._shelf.sound:
            rows = self._keys(torch.arange(len(self._shard)), 0)
            if all(bool(entry.find(rows, self._fingerprint).found.all()) for entry in self._entries.values()):
                return ""
            self._shelf.sound[about] = self._probe()
        return self._shelf.sound[about]

    def __call__(self, at: Tensor, epoch: int = 0, asked: bool = True) -> Value:
        """What the agent says of samples at positions ``at [B]`` in an epoch, in this order.

        ``asked``: in place of forwards, which were spared where it is found.
        """
        at = at.cpu()
        keys = self._keys(at, epoch)
        first, back = _different(keys)
        at, keys = at[first], keys[first]
        found, foreign = self._there(keys)
        parts = [self._read(at[found], keys[found], foreign[found], asked)] if found.any() else []
        lacking = (~found).nonzero()[:, 0]
        parts += (
            [self._made(at[some], keys[some], epoch) for some in lacking.split(self._chunk)] if len(lacking) else []
        )
        places = torch.cat([found.nonzero()[:, 0], lacking]).argsort()[back]
        whole = {name: self._ordered(name, [part[name] for part in parts], at, found, places) for name in self._entries}
        return whole.get("", UNREAD), {name: value for name, value in whole.items() if name}

    def lacking(self, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Positions of the samples of which the store lacks an answer in the view of an epoch: of equal ones the first.

        With the digests of each by entry. Of texts those of one shape stand together, so that they fill forwards.
        """
        keys = self._keys(torch.arange(len(self._shard)), epoch)
        first, _ = _different(keys)
        at = first[~self._there(keys[first])[0]].sort().values
        if not isinstance(self._shard.x, Numbers):
            shapes = self._shard.x.shapes.cpu().unique(dim=0, return_inverse=True)[1]
            at = at[shapes[at].argsort(stable=True)]
        return at, {entry.key.digest: keys[at] for entry in self._entries.values()}

    def fill(self, at: Tensor, epoch: int) -> int:
        """Forward and write, of samples at positions ``at``, what is not there in the view of an epoch.

        Returns how many are not there afterwards either: the store took none.
        """
        keys = self._keys(at, epoch)
        lacking, before = (~self._there(keys)[0]).nonzero()[:, 0], self._hits.written
        for some in lacking.split(self._chunk) if len(lacking) else ():
            self._made(at[some], keys[some], epoch)
        whole = self._hits.written - before == len(lacking)  # else another process may have written them meanwhile
        return 0 if whole else int((~self._there(keys)[0]).sum())

    def different(self, epoch: int) -> int:
        """How many different samples there are in the view of an epoch."""
        return len(_different(self._keys(torch.arange(len(self._shard)), epoch))[0])

    @property
    def rows(self) -> int:
        """Samples of each forward."""
        return self._rows

    def _there(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Of which samples all is in the store, and of which of these something that was computed otherwise."""
        found = torch.ones(len(keys), dtype=torch.bool)
        foreign = torch.zeros_like(found)
        for entry in self._entries.values():
            told = entry.find(keys, self._fingerprint)
            found &= told.found
            foreign |= told.foreign
            for other in told.elsewhere:
                self._shelf.elsewhere[other.differs(self._fingerprint)] = None
        return found, foreign

    def view(self, epoch: int) -> int:
        """The number of the view that an epoch sees."""
        return 0 if self._view is None else self._view.draw(epoch)

    def known(self, epoch: int) -> int | None:
        """Bytes of all answers in the view of an epoch, where the store has all; else None."""
        keys = self._keys(torch.arange(len(self._shard)), epoch)
        if not all(bool(entry.find(keys, self._fingerprint).found.all()) for entry in self._entries.values()):
            return None
        one = [read_signal(entry, keys[:1])[0] for entry in self._entries.values()]
        rows = len(self._shard) if isinstance(self._shard.x, Numbers) else int(self._shard.x.lengths.sum())
        return rows * sum(_bytes(value) // max(1, len(value)) for value in one)

    def published(self, most: int | None) -> Value | None:
        """What the agent says of the whole stream; None where that is more than ``most`` bytes, and all is kept.

        Then :meth:`refer` says where. No more than that is held meanwhile. ``most`` None: any number.
        """
        whole = torch.arange(len(self._shard))
        size = None if most is None else self.known(0)
        if most is None or (size is not None and size <= most):
            return self(whole)
        if size is not None:
            self._seconds = self._seconds or cost(next(iter(self._entries.values())))
            self._hits.read += size
            self.spared(len(whole))
            return None
        parts: list[Value] = []
        held = 0
        for at in whole.split(self._chunk):
            parts.append(self(at))
            held += sum(map(_bytes, (parts[-1][0], *parts[-1][1].values())))
            if held > most:
                parts.clear()
        if held <= most:
            return joined([part[0] for part in parts]), {
                name: joined([part[1][name] for part in parts]) for name in self._names
            }
        return self(whole) if self.known(0) is None else None  # None: the disk is full, say

    def refer(self, name: str) -> tuple[EntryKey, Tensor, Fingerprint]:
        """Under which key the store has one of its outputs, the rows ``[n, 16]``, and on what they are computed."""
        return self._entries[name].key, self._keys(torch.arange(len(self._shard)), 0), self._fingerprint

    def all(self, epoch: int) -> Value:
        """All answers in the view of an epoch."""
        return self(torch.arange(len(self._shard)), epoch, asked=False)

    def picked(self, whole: Value, at: Tensor) -> Value:
        """Of all answers those for samples at positions ``at``."""
        logits = self._picked("", whole[0], at) if "" in self._entries else UNREAD
        return logits, {name: self._picked(name, value, at) for name, value in whole[1].items()}

    def _picked(self, name: str, value: Any, at: Tensor) -> Any:
        if isinstance(value, Tensor) and isinstance(self._shard.x, Numbers):
            return torch.index_select(value, 0, at.to(value.device))
        if name not in self._starts:
            counts = self._counts(name, torch.arange(len(self._shard)))
            self._starts[name] = None if counts is None else starts_of(counts)
        starts = self._starts[name]
        index = at if starts is None else ranges(starts[at], starts[at + 1] - starts[at])
        return rebuild(value, [leaf[index.to(leaf.device)] for leaf in leaves(value)])

    def cut(self, whole: Value, at: Tensor, ends: list[int]) -> list[Value]:
        """The values of samples at ``at``, apart where batches end."""
        places = torch.arange(len(at)).tensor_split(ends[:-1])
        parts = {}
        for name in self._entries:
            value, counts = whole[1][name] if name else whole[0], self._counts(name, at)
            index = places if counts is None else [ranges(starts_of(counts)[own], counts[own]) for own in places]
            parts[name] = [rebuild(value, [leaf[own.to(leaf.device)] for leaf in leaves(value)]) for own in index]
        logits = parts.get("", [UNREAD] * len(places))
        return [(logits[number], {name: parts[name][number] for name in whole[1]}) for number in range(len(places))]

    @property
    def _chunk(self) -> int:
        """Samples that are forwarded before they are written: whole forwards, and no more than memory has room for."""
        return max(1, min(ROWS, MADE // max(1, self._wide)) // self._rows) * self._rows

    @cached_property
    def _wide(self) -> int:
        """Bytes of all that is made of a sample, about; of a language model's logits there are hidden rows."""
        shapes, shard, total = self._host.config.shapes, self._shard.x, 0
        for name in self._entries:
            shape: Sequence[int] | None = shapes.get((self._one.name, name)) if name else self._one.outputs
            if not name and self._host.plan.task_of(self._one.name).outputs == "vocabulary":
                shape = (HIDDEN,)
            counts = self._counts(name, torch.arange(min(len(self._shard), self._rows)))
            rows = 1.0 if counts is None or isinstance(shard, Numbers) else float(counts.float().mean())
            total += int(4 * math.prod(shape or ()) * rows)
        return total

    def _keys(self, at: Tensor, epoch: int) -> Tensor:
        """The digests of samples in the view of an epoch."""
        own = self._digests[at]
        return own if self._view is None else seen(own, self._shard.samples(at), self._seed, self._view.draw(epoch))

    def _counts(self, name: str, at: Tensor) -> Tensor | None:
        """How many rows of a value samples have; None where each has one."""
        per = self._one.per(name)
        if per == "samples" or isinstance(self._shard.x, Numbers):
            return None
        chosen = self._shard.x.select(at)
        return (chosen.counts if per == "units" else chosen.lengths).cpu()

    def _ordered(self, name: str, parts: list[Any], at: Tensor, found: Tensor, places: Tensor) -> Any:
        """What was read and what was made, sample by sample in the order that was asked for."""
        value, counts = joined(parts), self._counts(name, torch.cat([at[found], at[~found]]))
        index = places if counts is None else ranges(starts_of(counts)[places], counts[places])
        if counts is None and len(places) == len(value) and bool((places == torch.arange(len(places))).all()):
            return value
        return rebuild(value, [leaf[index.to(leaf.device)] for leaf in leaves(value)])

    # -- from the store --------------------------------------------------------------------------------------------

    def _read(self, at: Tensor, keys: Tensor, foreign: Tensor, asked: bool) -> dict[str, Any]:
        hits, values = self._hits, {}
        for name, entry in self._entries.items():
            value, _ = read_signal(entry, keys)
            hits.read += _bytes(value)
            values[name] = value.to(self._one.device)
        hits.foreign += int(foreign.sum())
        self._seconds = self._seconds or cost(next(iter(self._entries.values())))
        if asked:
            self.spared(len(at))
        return values

    def spared(self, count: int) -> None:
        """Count so many answers that were there."""
        self._hits.found += count
        self._hits.forwards += -(-count // self._rows)
        self._hits.seconds += count * self._seconds

    # -- made here -------------------------------------------------------------------------------------------------

    def _made(self, at: Tensor, keys: Tensor, epoch: int) -> dict[str, Any]:
        one, hits = self._one, self._hits
        start = time.perf_counter()
        logits, more = one.inference(self._x(at, epoch), self._size, self._names)
        if one.device.type == "cuda":
            torch.cuda.synchronize(one.device)
        seconds = time.perf_counter() - start
        values = {"": logits, **more}
        kept = parts(one.name, {name: values[name] for name in self._entries}, self._form)
        hits.forwarded += len(at)
        self._write(at, keys, kept, seconds / len(at), hits)
        if self._form == EXACT:
            return values
        return {name: value.value for name, value in kept.items()}

    def _write(self, at: Tensor, keys: Tensor, values: dict[str, Parts], seconds: float, hits: Hits) -> None:
        written = 0
        for name, entry in self._entries.items():
            counts = self._counts(name, at)
            starts, ids = None if counts is None else starts_of(counts), self._shard.samples(at)
            try:
                entry.info.setdefault(SECONDS, seconds)
                written = values[name].write(entry, keys, starts, self._fingerprint, ids=ids)
            except ValueError as why:
                self._shelf.left[self._one.name] = str(why)
                return
            hits.kept += values[name].size * written // len(at)
        hits.written += written

    def _x(self, at: Tensor, epoch: int) -> Any:
        shard = self._shard
        if not isinstance(shard.x, Numbers):
            return shard.x.select(at)
        x = shard.x[at.to(shard.device)]
        return x if self._view is None else self._one.see(x, shard.samples(at), epoch)

    def _probe(self) -> str:
        """Ask for some samples in several orders."""
        one, made = self._one, self._one.forwards
        some = torch.linspace(0, len(self._shard) - 1, min(len(self._shard), self._rows)).long()
        try:
            return moves(self._all, some, self._counts)
        finally:
            one.forwards = made

    def _all(self, at: Tensor) -> dict[str, Any]:
        logits, more = self._one.inference(self._x(at, 0), self._size, self._names)
        return {"": logits, **more}


def _different(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of some digests stands first, and for each of them, which of these it is."""
    halves = keys.numpy().view("<u8")
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    new = np.ones(len(order), bool)
    new[1:] = (halves[order[1:]] != halves[order[:-1]]).any(1)
    back = np.empty(len(order), np.int64)
    back[order] = new.cumsum() - 1
    return torch.from_numpy(order[new]), torch.from_numpy(back)


def _bytes(value: Tensor | Lazy) -> int:
    """Of what is kept for each row."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(value))


def cost(entry: Entry) -> float:
    """Seconds that a row took whoever wrote the first."""
    try:
        return float(read_card(entry.folder)[1].get(SECONDS, 0))
    except (OSError, Damaged, TypeError, ValueError):
        return 0.0
