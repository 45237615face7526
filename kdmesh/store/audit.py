"""What a sparse, or rounded, answer costs and does to a loss, measured against the same producer's dense answers.

The loss is the forward KL of a student, in nats a row. A student decides what an error matters: one that is near its
teacher has a small loss, of which a given error is a larger part. Where none is at hand, two stand in, which the dense
answers give themselves: `prior`, that says of each row their average over all, and `half`, whose logits are half way
from there to the teacher's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.signals.lazy import Lazy, taken
from kdmesh.signals.sampled import SampledProbs
from kdmesh.signals.sparse import RULES, TopKLogits
from kdmesh.store import forms
from kdmesh.store.entry import Entry
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.signals import TEXTS, read_signal
from kdmesh.store.store import EntryInfo, Store

CHUNK = 2**22  # elements that are worked on at a time
ROWS = 4096  # of an entry that are measured, at most
STUDENTS = ("half", "prior")


@dataclass
class Figures:
    """What was summed up over rows, of one way in which an answer becomes a loss, for one student.

    Attributes:
        rows: how many; ``dense``: the sum of their dense losses, ``found``: of those with this answer.
        off: sums of the differences' sizes, ``squares``: of their squares.
        cosine: sums of products of both gradients, and of each with itself, over all rows.
        mean: sums of both gradients by column: of their difference noise averages out, and bias does not.
    """

    rows: int = 0
    dense: float = 0.0
    found: float = 0.0
    off: float = 0.0
    squares: float = 0.0
    cosine: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    mean: list[Tensor] = field(default_factory=list)

    def add(self, losses: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]) -> None:
        """Take in rows: losses ``[n]`` and gradients at the student's logits ``[n, V]``, dense first."""
        dense, found = (one.double() for one in losses)
        self.rows += len(dense)
        self.dense, self.found = self.dense + float(dense.sum()), self.found + float(found.sum())
        self.off, self.squares = self.off + float((found - dense).abs().sum()), self.squares + _dot(found - dense)
        one, other = gradients
        self.cosine = [a + b for a, b in zip(self.cosine, (_dot(one, other), _dot(one), _dot(other)), strict=True)]
        sums = [side.sum(0).double() for side in gradients]
        self.mean = [a + b for a, b in zip(self.mean, sums, strict=True)] if self.mean else sums

    def plus(self, other: Figures) -> Figures:
        """The figures of both's rows."""
        mean = [a + b for a, b in zip(self.mean, other.mean, strict=True)] if self.mean and other.mean else other.mean
        return Figures(
            self.rows + other.rows, self.dense + other.dense, self.found + other.found, self.off + other.off,
            self.squares + other.squares, [a + b for a, b in zip(self.cosine, other.cosine, strict=True)],
            mean or self.mean,
        )  # fmt: skip

    def record(self) -> dict[str, float]:
        """The figures, by name: errors are parts of the dense loss; the bias of a gradient, of a row's own size."""
        count, whole = max(self.rows, 1), self.dense or math.nan
        spread = max(0.0, self.squares / count - ((self.found - self.dense) / count) ** 2)
        both, one, other = self.cosine
        wrong = float((self.mean[1] - self.mean[0]).norm()) / count / math.sqrt(one / count) if one else math.nan
        return {
            "loss": self.dense / count,
            "error": (self.found - self.dense) / whole,
            "standard_error": math.sqrt(spread * count) / whole,
            "error_of_a_row": self.off / whole,
            "cosine": both / math.sqrt(one * other) if one and other else math.nan,
            "gradient_bias": wrong,
        }


def _dot(one: Tensor, other: Tensor | None = None) -> float:
    return float((one.double() * (one if other is None else other).double()).sum())


Ways = Mapping[str, Tensor | Lazy]
Student = Callable[[int, int], Tensor]


def ways(value: Tensor | Lazy) -> dict[str, Tensor | Lazy]:
    """An answer by the ways in which it may become a loss: top-k logits by each rule for their tail."""
    if not isinstance(value, TopKLogits):
        return {"drawn" if isinstance(value, SampledProbs) else "": value}
    return {rule: value.ruled(rule) for rule in RULES}


def measure(dense: Tensor | Lazy, values: Ways, students: Mapping[str, Student]) -> dict[tuple[str, str], Figures]:
    """Figures by way and student, of all rows. ``dense``: logits ``[N, V]``, ``students``: theirs, of rows a to b."""
    found = {(way, name): Figures() for way in values for name in students}
    step = max(1, CHUNK // dense.shape[1])
    for start in range(0, len(dense), step):
        stop = min(start + step, len(dense))
        log_p = _rows(dense, start, stop).log_softmax(1)
        p = log_p.exp()
        for name, student in students.items():
            logits = student(start, stop).float()
            log_q = logits.log_softmax(1)
            loss, gradient = _divergence(p, log_p, log_q), log_q.exp() - p
            for way, value in values.items():
                losses, gradients = _loss(value, logits, p, start, stop)
                found[way, name].add((loss, losses), (gradient, gradients))
    return found


def _rows(value: Tensor | Lazy, start: int, stop: int) -> Tensor:
    return (value[start:stop] if isinstance(value, Tensor) else value.rows(start, stop)).float()


def _divergence(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """``sum p (log p - log q)`` of rows; where p is 0, 0."""
    return (p * (log_p - log_q).masked_fill(p == 0, 0.0)).sum(1)


def _loss(value: Tensor | Lazy, logits: Tensor, p: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """A student's losses of rows ``[n]`` and their gradient at its logits ``[n, V]``, against a kept answer."""
    with torch.enable_grad():
        leaf = logits.detach().clone().requires_grad_()
        if isinstance(value, SampledProbs):  # with the dense entropy, which no student changes
            drawn = value.rows(start, stop)
            losses = torch.xlogy(p, p).sum(1) - (drawn * leaf.log_softmax(1)).sum(1)
        else:
            own, theirs = (
                value.facing(leaf, start, stop) if isinstance(value, Lazy) else (leaf, value[start:stop].float())
            )
            log_t = theirs.float().log_softmax(1)
            losses = _divergence(log_t.exp(), log_t, own.log_softmax(1))
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradient


def stand_ins(dense: Tensor | Lazy) -> dict[str, Student]:
    """The students `half` and `prior` of dense answers."""
    step, total = max(1, CHUNK // dense.shape[1]), torch.zeros(dense.shape[1], dtype=torch.float64)
    for start in range(0, len(dense), step):
        total += _rows(dense, start, min(start + step, len(dense))).softmax(1).sum(0)
    prior = (total / max(1, len(dense))).clamp_min(1e-12).log().float()
    return {
        "half": lambda start, stop: (_rows(dense, start, stop).log_softmax(1).clamp_min(-50.0) + prior) / 2,
        "prior": lambda start, stop: prior.expand(stop - start, -1),
    }


@dataclass(frozen=True)
class Audit:
    """One entry, measured.

    Attributes:
        info: the entry; ``kind`` and ``form`` of its values; ``bytes``: of its shards for each row of a value.
        tail: the mean mass of what is not named (top-k), or drawn for (sampled); None of others.
        rows: how many were measured; ``against``: the entry of dense answers, None where there is none here.
        figures: by way and student.
    """

    info: EntryInfo
    kind: str
    form: str
    bytes: float
    tail: float | None
    rows: int
    against: str | None
    figures: dict[tuple[str, str], dict[str, float]]

    def record(self) -> dict[str, Any]:
        """As plain data."""
        told = [{"tail": way, "student": name, **one} for (way, name), one in self.figures.items()]
        return {
            "digest": self.info.digest, "kind": self.kind, "form": self.form, "bytes_a_row": self.bytes,
            "tail_mass": self.tail, "rows": self.rows, "against": self.against, "measured": told,
        }  # fmt: skip


def audits(store: Store, chosen: Sequence[EntryInfo]) -> Iterator[Audit]:
    """Measure entries one by one: sparse ones and those in a form that is not exact. Others are passed over."""
    everything = [one for one in store.entries() if one.key is not None and not one.fault]
    for info in chosen:
        if info.key is None or info.fault:
            continue
        entry = store.entry(info.key)
        entry.refresh()
        about = next((shard.about.get("signal") or {} for shard in entry.shards), {})
        sparse = about.get("kind") in ("top_k", "sampled")
        if not about or about.get("kind") == TEXTS or (not sparse and about.get("form") == forms.EXACT):
            continue
        yield _audited(store, info, entry, about, everything)


def _audited(
    store: Store, info: EntryInfo, entry: Entry, about: Mapping[str, Any], everything: Sequence[EntryInfo]
) -> Audit:
    width = sum(shard.size for shard in entry.shards)
    count = sum(len(shard) if shard.starts is None else int(shard.starts[-1]) for shard in entry.shards)
    found = _pair(store, info, entry, everything)
    figures: dict[tuple[str, str], dict[str, float]] = {}
    against, rows = None, 0
    value: Tensor | Lazy
    if found is None:
        value, _ = read_signal(entry, _some(entry))
    else:
        against, dense, value = found
        rows = len(dense)
        measured = measure(dense, ways(value), stand_ins(dense)) if rows else {}
        figures = {at: one.record() for at, one in measured.items()}
    tail = float(value.tail.double().exp().mean()) if isinstance(value, TopKLogits | SampledProbs) else None
    return Audit(info, about["kind"], about["form"], width / max(1, count), tail, rows, against, figures)


def _some(entry: Entry) -> Tensor:
    """Digests of some samples of an entry, spread evenly over its shards; a fixed choice."""
    every = torch.cat([torch.from_numpy(shard.rows.view("<i8").copy()) for shard in entry.shards])
    picked = torch.linspace(0, len(every) - 1, min(len(every), ROWS)).long().unique()
    return every[picked].view(torch.uint8).view(len(picked), -1)


def _pair(
    store: Store, info: EntryInfo, entry: Entry, everything: Sequence[EntryInfo]
) -> tuple[str, Tensor | Lazy, Tensor | Lazy] | None:
    """Dense answers to the same samples, and the entry's own; None where none are here."""
    assert info.key is not None
    output = info.key.signal.get("output")
    here = Fingerprint.here()
    rows = _some(entry)
    for other in everything:
        if other.key is None or other.digest == info.digest or other.key.producer != info.key.producer:
            continue
        if other.key.signal.get("output") != output or other.key.signal.get("made") or other.key.signal.get("form"):
            continue
        whole = store.entry(other.key)
        there = whole.find(rows, here).found & entry.find(rows, here).found
        if not there.any():
            continue
        dense, first = read_signal(whole, rows[there])
        value, second = read_signal(entry, rows[there])
        if dense.shape[0] != value.shape[0] or dense.dim() != 2 or dense.shape[1] != value.shape[1]:
            raise MeshError(
                f"{list(value.shape)} here, and {list(dense.shape)} in the dense answers: a head whose vocabulary, or "
                "a tokenizer that, changed",
                where=f"entry {entry.name} of the store",
                instead="a store of one model",
            )
        if len(dense) > ROWS:
            index = torch.linspace(0, len(dense) - 1, ROWS).long()
            dense, value = taken(dense, index), taken(value, index)
        del first, second
        return other.digest, dense, value
    return None
