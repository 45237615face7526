"""Sampled targets: a few columns of each row, drawn so that on average they are the whole distribution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.signals.crossing import LARGE
from kdmesh.signals.lazy import Lazy
from kdmesh.signals.wide import wide

if TYPE_CHECKING:
    from collections.abc import Sequence

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # SplitMix64
MASK = 2**64 - 1


class SampledProbs(Lazy):
    """Probabilities ``[N, V]`` of which the expectation is the source's distribution: k + 1 numbers, k + s columns.

    The k likeliest columns stand with their own probability (``values [N, k]``, logarithms). Of all others together
    (``tail [N]``, the logarithm of their mass) s are drawn, each for a share ``exp(tail) / s``: a column that is drawn
    twice has two shares. ``index [N, k + s]`` int32 has the columns: the likeliest first, then those that were drawn.

    The draw is systematic: one uniform number u for a row, and of the cumulated probabilities of the others, in the
    order of columns, the places ``(u + j) / s``, j = 0 .. s - 1. A column with a share of p of that mass is drawn
    ``floor(s p)`` or ``ceil(s p)`` times, on average ``s p`` times: so each row's expectation is the distribution to
    the last digit, its sum is always 1, and what is linear in it, as the gradient of a forward KL, is right on average.
    What is not linear, as its entropy or a reverse KL, is not.

    No gradient passes.
    """

    shared = ("columns",)

    def __init__(self, values: Tensor, index: Tensor, tail: Tensor, columns: int) -> None:
        self.values, self.index, self.tail = values, index, tail
        super().__init__(torch.Size((len(values), columns)), values.dtype, values.device, False)

    @classmethod
    @torch.no_grad()
    def draw(
        cls, logits: Tensor | Lazy, k: int, draws: int, *, seed: int = 0, temperature: float = 1.0
    ) -> SampledProbs:
        """Of ``softmax(logits / temperature)``, logits ``[N, V]``, the k likeliest columns and ``draws`` of the rest.

        ``0 <= k <= V``, ``draws >= 1``. A row's u is derived from ``seed`` and from its k likeliest numbers and their
        columns, or from all of it where k is 0: the same answer has the same draw wherever and however often it is
        made, and another answer, as of another sample or view, or another seed, has a draw of its own.
        """
        count, columns = logits.shape
        step = max(1, min(count, LARGE // columns))
        dtype = torch.promote_types(logits.dtype, torch.float32)
        values = torch.empty((count, k), dtype=dtype, device=logits.device)
        index = torch.empty((count, k + draws), dtype=torch.int32, device=logits.device)
        tail = values.new_empty(count)
        for start in range(0, count, step):
            at = slice(start, min(start + step, count))
            rows = logits.rows(start, at.stop) if isinstance(logits, Lazy) else logits[at]
            log_p = (rows.to(dtype) / temperature).log_softmax(1)
            best, places = log_p.topk(k)
            values[at], index[at, :k] = best, places
            u = _uniform(torch.cat([best, log_p], 1) if not k else best, places, seed)
            others = log_p.scatter_(1, places, float("-inf")).to(wide(log_p.device)).exp_()
            cumulated = others.cumsum(1)
            total = cumulated[:, -1:]
            tail[at] = total[:, 0].log()
            within = (torch.arange(draws, device=u.device) + u[:, None]) / draws * total
            within = torch.minimum(within, total.nextafter(torch.zeros_like(total)))  # rounding must not pass the end
            drawn = torch.searchsorted(cumulated, within, right=True).clamp_max_(columns - 1)
            index[at, k:] = drawn
        return cls(values, index, tail, columns)

    @property
    def draws(self) -> int:
        """How many columns of each row were drawn: s."""
        return self.index.shape[1] - self.values.shape[1]

    def weights(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The probabilities of the columns of ``index``, ``[n, k + s]``."""
        at = slice(start, stop)
        share = (self.tail[at].exp() / self.draws)[:, None].expand(-1, self.draws)
        return torch.cat([self.values[at].exp(), share], 1)

    def pack(self) -> dict[str, Tensor]:
        """What it is given, and how many columns there are."""
        columns = torch.tensor(self.shape[1])
        return {"values": self.values, "index": self.index, "tail": self.tail, "columns": columns}

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> SampledProbs:
        """Of what it was given."""
        return cls(parts["values"], parts["index"], parts["tail"], int(parts["columns"]))

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Rows of probabilities over all columns; nearly all are 0."""
        index, weights = self.index[start:stop].long(), self.weights(start, stop)
        if out is None:
            out = weights.new_empty(len(index), self.shape[1])
        with torch.no_grad():
            inside = index < self.shape[1]  # others were narrowed away
            out.zero_().scatter_add_(1, index.where(inside, 0), weights.where(inside, 0.0).to(out.dtype))
        return out

    def leaves(self) -> tuple[Tensor, ...]:
        """Logarithms of the likeliest, columns, and the logarithm of what is left."""
        return self.values, self.index, self.tail

    def of(self, *rows: Tensor) -> SampledProbs:
        """Other rows over as many columns."""
        values, index, tail = rows
        return SampledProbs(values, index, tail, self.shape[1])

    def joined(self, others: Sequence[Lazy]) -> Lazy:
        """Its rows and those of others, one after the other."""
        return super().joined(others)

    def narrow(self, vocabulary: int) -> SampledProbs:
        """The first so many columns, as they are: no more mass than these have."""
        return SampledProbs(self.values, self.index, self.tail, vocabulary)

    def detach(self) -> SampledProbs:
        """Itself: no gradient passes."""
        return self

    def to(self, device: torch.device | str) -> SampledProbs:
        """The same on a device."""
        return self if torch.device(device) == self.device else self.of(*(part.to(device) for part in self.leaves()))


def _uniform(values: Tensor, places: Tensor, seed: int) -> Tensor:
    """A number in [0, 1) for each row, ``[N]``, derived from its bits: ``values [N, m]``, ``places [N, k]``.

    The bits are summed with a random odd factor for each column (multiply-shift), and mixed as SplitMix64 does.
    """
    whole = torch.int64 if values.dtype is torch.float64 else torch.int32
    parts = torch.cat([values.contiguous().view(whole).long(), places], 1)
    factors = torch.tensor([one | 1 for one in _sequence(seed, parts.shape[1])], dtype=torch.uint64).view(torch.int64)
    mixed = _mix((parts * factors.to(parts.device)).sum(1))
    return ((mixed >> 11) & (2**53 - 1)).to(wide(values.device)) / 2**53


def _mix(h: Tensor) -> Tensor:
    """SplitMix64's last steps on int64, of which the bits are meant."""
    for shift, factor in ((30, FIRST), (27, SECOND)):
        h = (h ^ ((h >> shift) & (2 ** (64 - shift) - 1))) * (factor - 2**64)
    return h ^ ((h >> 31) & (2**33 - 1))


def _sequence(seed: int, count: int) -> Iterator[int]:
    """So many numbers of 64 bits, by SplitMix64."""
    state = seed & MASK
    for _ in range(count):
        state = (state + GOLDEN) & MASK
        one = ((state ^ (state >> 30)) * FIRST) & MASK
        one = ((one ^ (one >> 27)) * SECOND) & MASK
        yield one ^ (one >> 31)
