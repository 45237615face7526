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
from kdmesh.files import reason, write
from kdmesh.store import gather, shards, using
from kdmesh.store.card import CARD, Damaged, LaterCard, card, read_card
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.key import EntryKey
from kdmesh.store.pruning import USED, make_room
from kdmesh.store.root import FULL, Root
from kdmesh.store.shards import Newer, Shard, Unreadable

SHARDS, SET_ASIDE = "shards", "set-aside"
SHARD_BYTES = 2**26
"""Bytes of values in one shard, about: more are written as several."""
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


class Entry:
    """Rows by the digests of their samples. Made by :meth:`kdmesh.store.store.Store.entry`.

    Any number of processes may read and write one at a time: shards are only added, each whole.
    """

    def __init__(self, root: Root, key: EntryKey, info: Mapping[str, Any] | None = None) -> None:
        self.key = key
        self.folder = root.folder(key.digest)
        self._root, self._info = root, dict(info or {})
        self._open: dict[str, Shard] = {}
        self._left: set[str] = set()  # names of files that are not read
        self._lock: IO[Any] | None = None
        self._preferred: Fingerprint | None = None
        self._touched = False

    def find(self, rows: Tensor, fingerprint: Fingerprint, round: int | None = None) -> Found:
        """Which rows the store has, by their digests ``[n, 16]`` uint8.

        ``fingerprint``: on what they would be computed now. Rows of it are preferred, by :meth:`read` too. ``round``:
        that of a history; None: rows of no round.
        """
        self._preferred = fingerprint
        self.refresh()
        of, _, order = self._located(shards.numbers(rows), round)
        foreign = np.array([one.fingerprint != fingerprint for one in order] + [False])[of]
        names = {order[number].fingerprint for number in np.unique(of[foreign])}
        elsewhere = tuple(sorted(names, key=lambda one: one.digest))
        if (of >= 0).any():
            self._touch()
        return Found(torch.from_numpy(of >= 0), torch.from_numpy(foreign), elsewhere)

    def read(self, rows: Tensor, round: int | None = None) -> tuple[dict[str, Tensor], Tensor | None]:
        """The values of rows that were found, by name, in this order, and where each row's begin.

        That is ``[n + 1]`` int64 where a sample has many rows, else None. KeyError for rows that are not there.
        """
        of, places, order = self._located(shards.numbers(rows), round)
        if (of < 0).any():
            raise KeyError(f"{int((of < 0).sum())} of {len(of)} rows are not in the store: find() tells which are")
        if not order:
            return {}, None
        self._refuse_unlike(one.layout for one in order)
        return gather.joined(order, of, places)

    def write(
        self,
        rows: Tensor,
        values: Mapping[str, Tensor],
        starts: Tensor | None,
        fingerprint: Fingerprint,
        *,
        ids: Tensor | None = None,
        round: int | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> int:
        """Keep rows: ``values`` by name, each ``[n, ...]``, or ``[starts[-1], ...]`` with ``starts [n + 1]``.

        Rows that are there already, of this fingerprint, are not written again. ``ids [n]``: the samples' numbers in
        their stream, by which a person may look for them. ``round``: of a history. ``about``: more to note in the
        shards. Returns how many rows were written: where the disk is full, say, none, and the store's ``notes`` say
        why. ValueError for tensors that do not belong together; MeshError where the entry has others.
        """
        wanted = shards.numbers(rows)
        gather.check(len(wanted), values, starts, ids)
        self.refresh()
        self._refuse_unlike([gather.layout(values, starts), *(one.layout for one in self.shards[:1])])
        keep = self._new(wanted, fingerprint, round)
        if not len(keep) or self._root.fault:
            return 0
        noted: dict[str, Any] = {"entry": self.key.digest, "fingerprint": fingerprint.record(), **(about or {})}
        if round is not None:
            noted["round"] = round
        written = 0
        try:
            if not self._begin():
                return 0
            for chunk in gather.chunks(keep, values, starts, SHARD_BYTES):
                taken, begins = gather.taken(chunk, values, starts)
                known = None if ids is None else ids.cpu()[torch.from_numpy(chunk)]
                size = sum(one.numel() * one.element_size() for one in taken.values()) + len(chunk) * shards.WIDTH
                if not make_room(self._root, size):
                    self._root.note(
                        f"{FULL}: its limit of {self._root.limit} bytes is in use, so new rows are not kept"
                    )
                    break
                self._put(wanted[chunk], taken, begins, known, noted)
                written += len(chunk)
        except OSError as error:
            self._root.failed(error)
        return written

    def refresh(self) -> None:
        """Open the shards that have come since, and check each. What is not whole is set aside, and noticed."""
        try:
            names = sorted(name for name in os.listdir(self.folder / SHARDS) if name.endswith(shards.SUFFIX))
        except OSError:
            return
        for name in names:
            if name in self._open or name in self._left or name.startswith("."):
                continue
            if self._lock is None:
                self._lock = using.shared(self.folder)
            path = self.folder / SHARDS / name
            try:
                self._open[name] = Shard(path, self.key.digest)
            except Newer as what:
                self._left.add(name)
                self._root.note(f"a newer version of kdmesh wrote a shard of {self.name} ({what}): it is left alone")
            except Unreadable as why:
                self._left.add(name)
                self._set_aside(path, str(why))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._left.add(name)
                self._root.note(f"a shard of {self.name} cannot be read: {reason(error)}; its rows are computed again")

    def _put(
        self,
        rows: np.ndarray,
        values: Mapping[str, Tensor],
        starts: Tensor | None,
        ids: Tensor | None,
        about: Mapping[str, Any],
    ) -> None:
        """Write one shard; one of the same name that could not be read is replaced."""
        name, _ = shards.write(self.folder / SHARDS, rows, values, starts, ids, about, bool(self._left))
        self._left.discard(name)

    @property
    def name(self) -> str:
        """How the entry is called where it is shown: the first 12 digits of its digest."""
        return self.key.digest[:12]

    @property
    def shards(self) -> list[Shard]:
        """Those that are open, by name."""
        return [self._open[name] for name in sorted(self._open)]

    def close(self) -> None:
        """Say that this process no longer uses it."""
        self._open.clear()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _located(self, wanted: np.ndarray, round: int | None) -> tuple[np.ndarray, np.ndarray, list[Shard]]:
        """For each row the number of its shard in a list, -1 where there is none, its place there, and the list."""
        order = [one for one in self.shards if one.round == round]
        order.sort(key=lambda one: (one.fingerprint != self._preferred, one.fingerprint.digest))
        of, places = np.full(len(wanted), -1), np.zeros(len(wanted), np.int64)
        left = np.arange(len(wanted))
        for number, shard in enumerate(order):
            if not len(left):
                break
            at = shard.places(wanted[left])
            hit = at >= 0
            of[left[hit]], places[left[hit]] = number, at[hit]
            left = left[~hit]
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
            read_card(self.folder)
        except LaterCard as what:
            self._root.note(f"entry {self.name}: {what}; nothing is added to it")
            return False
        except (Damaged, FileNotFoundError):
            write(self.folder / CARD, card(self.key, self._info))
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
