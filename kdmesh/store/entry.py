"""One producer's one signal in the store: rows are found by a digest of their sample, read and written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.files import inside, reason, write
from kdmesh.store import gather, mapped, merging, shards, using
from kdmesh.store.card import CARD, Damaged, LaterCard, card, read_card
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.key import EntryKey
from kdmesh.store.mapped import SUFFIX, Mapped, Newer, Unreadable, written_as
from kdmesh.store.places import Places, Rows
from kdmesh.store.pruning import USED, make_room
from kdmesh.store.remote import Remote, Unreachable
from kdmesh.store.root import FULL, SET_ASIDE, SHARDS, Root
from kdmesh.store.shards import SHARED, SIGNAL, Shard

SHARD_BYTES = 2**26
"""Bytes of values in one shard, about: more are written as several."""
SHARED_ABOUT = {"of": "all rows"}  # noted in the file of what they share
COARSE = 3600.0  # seconds: how exactly it is known when an entry was last used


@dataclass(frozen=True)
class Found:
    """Which of some rows the store has, each ``[n]`` bool.

    Attributes:
        found: those that it has.
        foreign: those of them that were computed on another machine, or with other settings: maybe with other bits.
        elsewhere: on what these were.
    """

    found: Tensor
    foreign: Tensor
    elsewhere: tuple[Fingerprint, ...] = ()


@dataclass(frozen=True)
class Newest:
    """Of a history, each row's newest round; ``before``: of those that are smaller than this one."""

    before: int | None = None

    def takes(self, round: int | None) -> bool:
        """Whether rows of a round may be taken."""
        return round is not None and (self.before is None or round < self.before)


Round = int | Newest | None
"""Rows of one round of a history, each row's newest, or, None, rows of no history."""


class Entry:
    """Rows by the digests of their samples. Made by :meth:`kdmesh.store.store.Store.entry`.

    Any number of processes may read and write one at a time: shards are only added, each whole.
    """

    def __init__(
        self, root: Root, key: EntryKey, info: Mapping[str, Any] | None = None, remote: Remote | None = None
    ) -> None:
        self.key = key
        self.folder = root.folder(key.digest)
        self.info, self._root, self._remote = dict(info or {}), root, remote
        self._open: dict[str, Shard] = {}
        self._shared: dict[str, Mapped] = {}
        self._left: set[str] = set()  # names of files that are not read
        self.damaged = False  # whether shards were set aside in this process
        self._lock: IO[Any] | None = None
        self._preferred: Fingerprint | None = None
        self._touched, self._carded = False, False
        self._changes = 0  # of which shards are open
        self._last: tuple[object, np.ndarray, tuple[np.ndarray, np.ndarray, list[Shard]]] | None = None

    def find(self, rows: Tensor, fingerprint: Fingerprint, round: Round = None) -> Found:
        """Which rows the store has, by their digests ``[n, 16]`` uint8.

        ``fingerprint``: on what they would be computed now. Rows of it are preferred, by :meth:`read` too. ``round``:
        of a history.
        """
        self._preferred = fingerprint
        self.refresh()
        of, _, order = self._located(shards.numbers(rows), round)
        foreign = np.array([one.fingerprint != fingerprint for one in order] + [False])[of]
        elsewhere = {order[number].fingerprint for number in np.unique(of[foreign])} if foreign.any() else set()
        if (of >= 0).any():
            self._touch()
        return Found(torch.from_numpy(of >= 0), torch.from_numpy(foreign), tuple(sorted(elsewhere, key=_digest)))

    def read(self, rows: Tensor, round: Round = None) -> tuple[dict[str, Tensor], Tensor | None]:
        """The values of rows that were found, by name, in this order, and where each row's begin.

        That is ``[n + 1]`` int64 where a sample has many rows, else None. KeyError for rows that are not there.
        """
        found = self.rows(rows, round)
        return found.values, found.starts

    def rows(self, rows: Tensor, round: Round = None) -> Rows:
        """The same, with what all rows share."""
        found = self.places(rows, round)
        return Rows({}, None) if found is None else found.rows()

    def places(self, rows: Tensor, round: Round = None) -> Places | None:
        """Where rows that were found stand, to be read again and again; None where there is no shard, and no row.

        KeyError for rows that are not there.
        """
        of, places, order = self._located(shards.numbers(rows), round)
        if (of < 0).any():
            raise KeyError(f"{int((of < 0).sum())} of {len(of)} rows are not in the store: find() tells which are")
        if not order:
            return None
        used = [order[number] for number in (np.unique(of) if len(of) else [0])]
        self._refuse_unlike(one.layout for one in used)
        about = used[0].about
        shared = self._shared[about[SHARED]["file"]].whole() if SHARED in about else {}
        return Places(order, of.astype(np.int32), places, shared, about.get(SIGNAL) or {})

    def write(
        self,
        rows: Tensor,
        values: Mapping[str, Tensor],
        starts: Tensor | None,
        fingerprint: Fingerprint,
        *,
        ids: Tensor | None = None,
        round: int | None = None,
        shared: Mapping[str, Tensor] | None = None,
        signal: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> int:
        """Keep rows: ``values`` by name, each ``[n, ...]``, or ``[starts[-1], ...]`` with ``starts [n + 1]``.

        Rows that are there already, of this fingerprint, are not written again. ``ids [n]``: the samples' numbers in
        their stream, by which a person may look for them. ``round``: of a history. ``shared``: tensors that all rows of
        the entry share. ``signal``: what the values are (kind, form, types), for :meth:`rows`; it is the same in all of
        an entry.
        ``about``: more to note in the shards.

        Returns how many rows were written: where the disk is full, say, none, and the store's ``notes`` say why.
        ValueError for tensors that do not belong together; MeshError where the entry has others.
        """
        wanted = shards.numbers(rows)
        gather.check(len(wanted), values, starts, ids)
        self.refresh()
        noted: dict[str, Any] = {**(about or {}), "entry": self.key.digest, "fingerprint": fingerprint.record()}
        noted |= {SIGNAL: dict(signal)} if signal else {}
        noted |= {} if round is None else {"round": round}
        together = {name: one.detach().cpu() for name, one in (shared or {}).items()}
        if together:
            noted[SHARED] = {"file": self._named(together), "is": _said(together)}
        parts = {name: (one.dtype, list(one.shape[1:])) for name, one in values.items()}
        layout = shards.words(parts, starts is not None, noted)
        self._refuse_unlike([layout, *(one.layout for one in self.shards[:1])])
        keep = self._new(wanted, fingerprint, round)
        if not len(keep) or self._root.fault:
            return 0
        written = 0
        try:
            if not self._begin():
                return 0
            if together and noted[SHARED]["file"] not in self._shared:
                (self.folder / SHARED).mkdir(exist_ok=True)
                mapped.write(self.folder / SHARED, together, SHARED_ABOUT, anew=True)
            for chunk in gather.chunks(keep, values, starts, SHARD_BYTES):
                taken, begins = gather.taken(chunk, values, starts)
                known = None if ids is None else ids.cpu()[torch.from_numpy(chunk)]
                size = sum(one.numel() * one.element_size() for one in taken.values()) + len(chunk) * shards.WIDTH
                if not make_room(self._root, size):
                    self._root.note(
                        f"{FULL}: its limit of {self._root.limit} bytes is in use, so new rows are not kept"
                    )
                    break
                folder = self.folder / SHARDS
                name = shards.write(folder, wanted[chunk], taken, begins, known, noted, anew=bool(self._left))
                self._left.discard(name)
                written += len(chunk)
        except OSError as error:
            self._root.failed(error)
        if written and self._remote is not None:
            self._send(self._remote)
        if written and not self.lasting:
            self._merge(fingerprint, round)
        return written

    def refresh(self) -> None:
        """Open the shards that have come since, and check each. What is not whole is set aside, and noticed.

        Where one went away meanwhile, there may be another that has its rows, or a newer round: it is looked for.
        """
        gone: set[str] = set()
        while more := self._opened(gone) - gone:
            gone |= more

    def _opened(self, gone: set[str]) -> set[str]:
        """Open what has come; which files, beside those that had ``gone`` before, were listed and not there."""
        missing: set[str] = set()
        if self._remote is not None:
            try:
                self._remote.fetch(self.key.digest, self.folder)
            except Unreachable as why:
                self._root.note(f"the store cannot be read, what is here of it is used: {why}")
        try:
            names = sorted(name for name in os.listdir(self.folder / SHARDS) if name.endswith(SUFFIX))
        except OSError:
            return missing
        for name in names:
            if name in self._open or name in self._left or name in gone or name.startswith("."):
                continue
            if self._lock is None:
                self._lock = using.shared(self.folder)
            path = self.folder / SHARDS / name
            try:
                shard = Shard(path, self.key.digest)
                if SHARED in shard.about:
                    self._map_shared(shard.about[SHARED]["file"])
                self._open[name] = shard
                self._changes += 1
            except Newer as what:
                self._left.add(name)
                self._root.note(f"a newer version of kdmesh wrote a shard of {self.name} ({what}): it is left alone")
            except Unreadable as why:
                self._left.add(name)
                self._set_aside(path, str(why))
            except FileNotFoundError:
                missing.add(name)
            except OSError as error:
                self._left.add(name)
                self._root.note(f"a shard of {self.name} cannot be read: {reason(error)}; its rows are computed again")
        if self._open and not self._carded:
            self._carded = True
            with suppress(Damaged, OSError):  # whoever writes next makes it anew; `verify` tells
                self._unlike_card()
        return missing

    def _unlike_card(self) -> bool:
        """Whether a newer version wrote what the entry is, which is then said."""
        try:
            read_card(self.folder)
        except LaterCard as what:
            self._root.note(f"entry {self.name}: {what}; what can be read of it is used, and nothing is added")
            return True
        return False

    def _named(self, shared: Mapping[str, Tensor]) -> str:
        """The file of what rows share; where it is there already, without writing out what may be a large layer."""
        for name, one in self._shared.items():
            there = one.whole()
            if there.keys() == shared.keys() and all(_same(there[part], shared[part]) for part in there):
                return name
        return mapped.named(shared, SHARED_ABOUT)

    def _send(self, remote: Remote) -> None:
        """Send what is here of the entry; the card comes first, and what rows share before them."""
        names = [f"{kind}/{name}" for kind in (SHARED, SHARDS) for name in self._whole(kind)]
        try:
            remote.send(self.key.digest, self.folder, [CARD, *names])
        except Unreachable as why:
            self._root.note(f"new rows are kept here alone, the store cannot be written: {why}")

    def _whole(self, kind: str) -> list[str]:
        """The files in a folder of the entry, but for what cannot be read."""
        folder = self.folder / kind
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(name for name in names if name.endswith(SUFFIX) and name[0] != "." and name not in self._left)

    def _map_shared(self, name: str) -> None:
        """Open what the rows of a shard share. Unreadable where that is not possible: then the shard is of no use."""
        if name in self._shared:
            return
        try:
            self._shared[name] = Mapped(inside(self.folder / SHARED, name))
        except (FileNotFoundError, MeshError, Unreadable) as why:
            raise Unreadable(f"what its rows share is {'missing' if isinstance(why, OSError) else 'damaged'}") from None

    @property
    def name(self) -> str:
        """How the entry is called where it is shown: the first 12 digits of its digest."""
        return self.key.digest[:12]

    @property
    def lasting(self) -> bool:
        """Whether shards are never deleted, but with the whole store: at a URL, where nobody knows who reads."""
        return self._remote is not None

    @property
    def shards(self) -> list[Shard]:
        """Those that are open, by name."""
        return [self._open[name] for name in sorted(self._open)]

    def files(self) -> dict[str, Mapped]:
        """Those that are open, by their paths in its folder: what rows share comes before the shards that need it."""
        shared = {f"{SHARED}/{name}": one for name, one in sorted(self._shared.items())}
        return shared | {f"{SHARDS}/{one.name}": one for one in self.shards}

    def close(self) -> None:
        """Say that this process no longer uses it."""
        self._open.clear()
        self._last, self._changes = None, self._changes + 1
        self._shared.clear()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def drop(self, names: Iterable[str]) -> None:
        """Delete shards. Who has them open goes on reading them."""
        for name in names:
            self._open.pop(name, None)
            self._changes += 1
            with suppress(FileNotFoundError):
                (self.folder / SHARDS / name).unlink()

    def _merge(self, fingerprint: Fingerprint, round: int | None) -> None:
        """Make one of many small shards."""
        self.refresh()
        own = [one for one in self.shards if one.fingerprint == fingerprint and one.round == round]
        small = merging.chosen(own, min(own, key=lambda one: one.size), SHARD_BYTES) if own else []
        size = sum(one.size for one in small)
        if not small or not make_room(self._root, size):
            return
        try:
            merging.merge(small, self.folder / SHARDS)
            self.drop(one.name for one in small)
        except OSError as error:
            self._root.failed(error)
        self._root.held = None if self._root.held is None else self._root.held - size

    def _located(self, wanted: np.ndarray, round: Round) -> tuple[np.ndarray, np.ndarray, list[Shard]]:
        """For each row the number of its shard in a list, -1 where there is none, its place there, and the list."""
        asked = (self._changes, self._preferred, round)
        if self._last is not None and self._last[0] == asked and np.array_equal(self._last[1], wanted):
            return self._last[2]  # what was just found is now read
        order = [
            one for one in self.shards if (round.takes(one.round) if isinstance(round, Newest) else one.round == round)
        ]
        order.sort(key=lambda one: (-(one.round or 0), one.fingerprint != self._preferred, one.fingerprint.digest))
        of, places = np.full(len(wanted), -1), np.zeros(len(wanted), np.int64)
        left = np.arange(len(wanted))
        for number, shard in enumerate(order):
            if not len(left):
                break
            at = shard.places(wanted[left])
            hit = at >= 0
            of[left[hit]], places[left[hit]] = number, at[hit]
            left = left[~hit]
        self._last = asked, wanted.copy(), (of, places, order)
        return of, places, order

    def _new(self, wanted: np.ndarray, fingerprint: Fingerprint, round: int | None) -> np.ndarray:
        """Positions of rows that are not there yet, in the order of shards; of the same row the first alone."""
        order = np.lexsort((np.arange(len(wanted)), wanted[:, 1], wanted[:, 0]))
        rows = wanted[order]
        first = np.ones(len(rows), bool)
        first[1:] = (rows[1:] != rows[:-1]).any(1)
        for shard in self._open.values():
            if shard.fingerprint == fingerprint and shard.round == round:
                first &= shard.places(rows) < 0
        return order[first]

    def _begin(self) -> bool:
        """Make the folder, with what it is, and use it; whether this version may write there."""
        while not (self._lock and (self.folder / SHARDS).is_dir()):
            self._unlock()  # of a folder that was deleted under us
            (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
            self._lock = using.shared(self.folder)
            if self._lock is None and (self.folder / SHARDS).is_dir():  # no locks here
                break
        try:
            if self._unlike_card():
                return False
        except (Damaged, FileNotFoundError):
            write(self.folder / CARD, card(self.key, self.info))
        self._touch()
        return True

    def _touch(self) -> None:
        """Note that it was used now, unless that was noted lately. A clock that jumped is set right by it."""
        if self._touched:
            return
        self._touched = True
        path = self.folder / USED
        with suppress(OSError):
            if not path.exists() or abs(time.time() - path.stat().st_mtime) > COARSE:
                path.touch()

    def _set_aside(self, path: Path, why: str) -> None:
        self.damaged = True
        with suppress(OSError):
            (self.folder / SET_ASIDE).mkdir(exist_ok=True)
            path.replace(self.folder / SET_ASIDE / path.name)
        self._root.note(f"a shard of {self.name} is damaged and was set aside: {why}; its rows are computed again")

    def _refuse_unlike(self, layouts: Iterable[str]) -> None:
        if len(unlike := sorted(set(layouts))) > 1:
            raise MeshError(
                f"values of two kinds under one key: {unlike[0]}, and {unlike[1]}",
                where=f"entry {self.name} of the store",
                file=str(self._root.path),
                instead="a key that says what the values are: `kdmesh store show` prints this one's",
            )


def _said(shared: Mapping[str, Tensor]) -> str:
    """What rows share, in words: ``columns 100`` of a number, of more the type and shape."""
    return ", ".join(
        f"{name} {one.item()}" if one.numel() == 1 else f"{name} {written_as(one.dtype)} {list(one.shape)}"
        for name, one in sorted(shared.items())
    )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _digest(one: Fingerprint) -> str:
    return one.digest
