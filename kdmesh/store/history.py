"""What a consensus, or who makes it, said of each sample in each round: as much of it as is to be kept.

Laine and Aila, "Temporal Ensembling for Semi-Supervised Learning", 2017, average what a model said of each sample over
epochs, as ``ema`` does over rounds; this one begins at the first value, and so needs no correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.signals.lazy import Lazy, leaves, rebuild
from kdmesh.store import forms, shards
from kdmesh.store.entry import Entry, Newest
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.key import EntryKey
from kdmesh.store.signals import read_signal, read_texts, write_signal, write_texts
from kdmesh.streams.tokens import ranges

KINDS = "last, all, {k: 3} or {ema: 0.9}"


@dataclass(frozen=True)
class Retention:
    """How much of a history is kept: of each sample its newest ``k`` rounds, or one average over all.

    Attributes:
        k: rounds of a sample; None: all of them.
        decay: of the average, what the value before has for a share; None: there is no average.
    """

    k: int | None = 1
    decay: float | None = None

    @classmethod
    def of(cls, told: object) -> Retention:
        """``last``, ``all``, ``{"k": 3}`` or ``{"ema": 0.9}``. MeshError for anything else."""
        match told:
            case "last":
                return cls(1)
            case "all":
                return cls(None)
            case {"k": int(k), **rest} if not rest and k > 0 and k is not True:
                return cls(k)
            case {"ema": float(decay), **rest} if not rest and 0 < decay < 1 and math.isfinite(decay):
                return cls(1, decay)
        raise MeshError(f"{told!r} does not say how much of a history is kept", where="retention", instead=KINDS)

    def told(self) -> str | dict[str, Any]:
        """What :meth:`of` takes."""
        if self.decay is not None:
            return {"ema": self.decay}
        return "all" if self.k is None else "last" if self.k == 1 else {"k": self.k}


def history_key(
    run: Mapping[str, Any], node: str, stream: str, signal: Mapping[str, Any], retention: Retention
) -> EntryKey:
    """The key of a history: of what a node, a consensus or one of its sources, said on a stream in a run.

    ``run``: what makes it this run and no other, as the mesh's name, a hash of its file and data, and the seed. The
    same run once more, or resumed, has the same history.
    """
    return EntryKey({"history": node, "stream": stream, "run": dict(run)}, {**signal, "retention": retention.told()})


class History:
    """The rounds of an entry."""

    def __init__(self, entry: Entry, retention: Retention) -> None:
        self._entry, self._retention = entry, retention

    def add(
        self,
        rows: Tensor,
        value: Tensor | Lazy,
        starts: Tensor | None,
        round: int,
        fingerprint: Fingerprint,
        *,
        ids: Tensor | None = None,
        form: str = forms.EXACT,
    ) -> int:
        """Keep what was said in a round of samples, by their digests ``[n, 16]``; return how many are new.

        A round that is there already, as after a run was resumed, is not added again. With ``ema`` the average is
        kept; MeshError for a signal that has none, as top-k logits, whose columns differ by round.
        """
        if round < 0:
            raise ValueError(f"rounds begin at 0, and not at {round}")
        if self._retention.decay is not None and isinstance(value, Lazy):
            raise MeshError(
                f"there is no average of {type(value).__name__} over rounds", where="retention",
                instead="last, all or {k: 3}, or a signal that is dense",
            )  # fmt: skip
        self._entry.refresh()
        new = self._lacking(shards.numbers(rows), round)
        if not len(new):
            self._forget()  # who wrote it may have been killed before it did
            return 0
        at = torch.from_numpy(new)
        known = None if ids is None else ids.cpu()[at]
        chosen, begins = _chosen(value, starts, at)
        if self._retention.decay is not None and isinstance(chosen, Tensor):
            chosen = self._averaged(rows[at], chosen, begins, round, fingerprint)
        written = write_signal(self._entry, rows[at], chosen, begins, fingerprint, form=form, ids=known, round=round)
        self._forget()
        return written

    def add_texts(
        self, rows: Tensor, texts: Sequence[str], round: int, fingerprint: Fingerprint, *, ids: Tensor | None = None
    ) -> int:
        """The same of texts, one of each sample."""
        self._entry.refresh()
        new, written = self._lacking(shards.numbers(rows), round), 0
        if len(new):
            at = torch.from_numpy(new)
            known = None if ids is None else ids.cpu()[at]
            kept = [texts[one] for one in new.tolist()]
            written = write_texts(self._entry, rows[at], kept, fingerprint, ids=known, round=round)
        self._forget()
        return written

    def texts(self, round: int) -> list[str]:
        """Of all samples the newest text up to a round, in the order of their digests."""
        self._entry.refresh()
        before = [one for one in self._entry.shards if one.round is not None and one.round <= round]
        there = [torch.from_numpy(one.rows.copy().view(np.uint8)) for one in before]
        if not there:
            return []
        return read_texts(self._entry, torch.cat(there).unique(dim=0), Newest(round + 1))

    def rounds(self) -> list[int]:
        """The rounds of which something is there."""
        self._entry.refresh()
        return sorted({one.round for one in self._entry.shards if one.round is not None})

    def read(
        self, rows: Tensor, fingerprint: Fingerprint, round: int | None = None
    ) -> tuple[Tensor, Tensor | Lazy | None, Tensor | None]:
        """Which of some samples were spoken of ``[n]``, what was said of these, and where each one's rows begin.

        ``round``: that one; None: each sample's newest.
        """
        which = Newest() if round is None else round
        found = self._entry.find(rows, fingerprint, which).found
        if not found.any():
            return found, None, None
        return found, *read_signal(self._entry, rows[found], which)

    def _lacking(self, wanted: np.ndarray, round: int) -> np.ndarray:
        """Positions of samples of which a round is neither there nor was, with as many newer ones as are kept."""
        newer = np.zeros(len(wanted), np.int64)
        there = np.zeros(len(wanted), bool)
        for number, hit in self._by_round(wanted).items():
            newer += hit & (number > round)
            there |= hit & (number == round)
        most = self._retention.k
        return np.flatnonzero(~there if most is None else ~there & (newer < most))

    def _by_round(self, wanted: np.ndarray) -> dict[int, np.ndarray]:
        """For each round which rows it has."""
        found: dict[int, np.ndarray] = {}
        for one in self._entry.shards:
            if one.round is not None:
                hit = one.places(wanted) >= 0
                found[one.round] = found[one.round] | hit if one.round in found else hit
        return found

    def _averaged(
        self, rows: Tensor, value: Tensor, starts: Tensor | None, round: int, fingerprint: Fingerprint
    ) -> Tensor:
        """The average up to this round: that of the round before and the new value, where there was one."""
        decay = self._retention.decay
        assert decay is not None
        before = Newest(round)
        found = self._entry.find(rows, fingerprint, before).found
        if not found.any():
            return value
        last, ends = read_signal(self._entry, rows[found], before)
        assert isinstance(last, Tensor)
        at = found.nonzero()[:, 0]
        now, begins = _chosen(value, starts, at)
        assert isinstance(now, Tensor)
        if now.shape != last.shape or (ends is not None and begins is not None and not ends.equal(begins)):
            raise MeshError(
                "a sample has another number of rows than in the round before", where="retention",
                instead="last, all or {k: 3}",
            )  # fmt: skip
        mixed = value.clone()
        places = at if starts is None else ranges(starts[at], starts[at + 1] - starts[at])
        mixed[places.to(value.device)] = torch.lerp(now, last.to(now), decay)
        return mixed

    def _forget(self) -> None:
        """Delete shards of which every row has as many newer ones as are kept."""
        most = self._retention.k
        if most is None or self._entry.lasting:
            return
        self._entry.refresh()
        for one in self._entry.shards:
            if one.round is not None:
                newer = [hit for number, hit in self._by_round(one.rows).items() if number > one.round]
                if newer and bool((np.sum(newer, 0) >= most).all()):
                    self._entry.drop([one.name])


def _chosen(value: Tensor | Lazy, starts: Tensor | None, at: Tensor) -> tuple[Tensor | Lazy, Tensor | None]:
    """The values of samples at some positions."""
    begins = None
    index = at
    if starts is not None:
        counts = starts[at + 1] - starts[at]
        index = ranges(starts[at], counts)
        begins = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return rebuild(value, [leaf[index.to(leaf.device)] for leaf in leaves(value)]), begins
