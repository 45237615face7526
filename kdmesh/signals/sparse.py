"""Top-k logits: the likeliest columns of each row, and how much is left for all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.signals.crossing import LARGE
from kdmesh.signals.lazy import Lazy

if TYPE_CHECKING:
    from collections.abc import Sequence

RULES = ("spread", "bucket", "renormalise")
"""What becomes of the mass of the columns that are not named, where a row becomes a loss."""


class TopKLogits(Lazy):
    """Log-probabilities of a few columns of each row, as logits over all of them: 2k + 1 numbers for a row of V.

    ``values [N, k]``: at least float32, of the columns ``index [N, k]`` (int32, different ones within a row);
    ``tail [N]``: the logarithm of the mass of all other columns together.

    ``rule`` says what becomes of the tail where a row becomes a loss:

    - `spread`: the tail's mass is spread evenly over the other columns, so that a row is a distribution and no mass is
      lost. Lost is what stood in the tail: a reader learns that it is flat.
    - `bucket`: the columns are compared, and all others together as one outcome, on both sides: a coarser distribution,
      whose divergence is never larger than the whole one's. Only the sum of the tail is taught.
    - `renormalise`: the columns alone are compared, both sides renormalised over them: nothing is learned of the mass
      that stands elsewhere, which teaches more certainty than the source has.

    Under each the divergence is 0 where the student says the same, and nowhere is it clamped, so it has a gradient
    wherever the two differ. With the last two it is compared by :meth:`facing`; where rows are made, a tail is spread.
    A row's offset is lost, which a softmax does not see and a comparison of logits themselves does.

    A column that the source rules out (a logit of -inf) gets nothing of the tail and stays at -inf. Which these are is
    sent along, a bit a column: ``ruled_out [N, columns / 8]`` (uint8; :func:`packed`), None where there are none.

    An ``index`` from ``columns`` on is of a column that was narrowed away. No gradient passes.
    """

    shared, optional = ("columns", "rule"), ("ruled_out",)

    def __init__(
        self,
        values: Tensor,
        index: Tensor,
        tail: Tensor,
        columns: int,
        ruled_out: Tensor | None = None,
        *,
        narrowed: bool = True,
        rule: str = "spread",
    ) -> None:
        """``narrowed``: whether an index may be of a column that was narrowed away; ``rule``: one of :data:`RULES`."""
        if rule not in RULES:
            raise ValueError(f"{rule!r} is no rule for a tail: {', '.join(RULES)}")
        self.values, self.index, self.tail, self.ruled_out = values, index, tail, ruled_out
        self.narrowed, self.rule, self.partial = narrowed, rule, rule != "spread"
        super().__init__(torch.Size((len(values), columns)), values.dtype, values.device, False)

    @classmethod
    @torch.no_grad()
    def top(cls, logits: Tensor | Lazy, k: int, rule: str = "spread", index: Tensor | None = None) -> TopKLogits:
        """Of logits ``[N, V]`` the k likeliest columns, ``1 <= k <= V``; where these are large, some rows at a time.

        ``index [N, k]`` (int32): these columns in their place, different ones within a row.
        """
        count, columns = logits.shape
        step = max(1, min(count, LARGE // columns))
        dtype = torch.promote_types(logits.dtype, torch.float32)
        most = step if isinstance(logits, Lazy) else 0
        buffer = torch.empty((most, columns), dtype=logits.dtype, device=logits.device)
        values = torch.empty((count, k), dtype=dtype, device=logits.device)
        found, tail = torch.empty_like(values, dtype=torch.int32), values.new_empty(count)
        ruled_out: Tensor | None = None
        for start in range(0, count, step):
            at = slice(start, min(start + step, count))
            out = buffer[: at.stop - start]
            rows = logits.rows(start, at.stop, out) if isinstance(logits, Lazy) else logits[at]
            rows = rows.to(dtype)
            if index is None:
                best, places = rows.topk(k)
            else:
                places = index[at].long()
                best = rows.gather(1, places)
            mass = rows.logsumexp(1)
            values[at], found[at] = best - mass[:, None], places
            tail[at] = rows.scatter(1, places, float("-inf")).logsumexp(1) - mass
            least = rows.amin()
            if ruled_out is None and least.device.type != "meta" and bool(least.isneginf()):
                ruled_out = _nowhere(count, columns, values.device)
            if ruled_out is not None:
                ruled_out[at] = packed(
                    rows.scatter(1, places, 0.0).isneginf()
                )  # those that are named say so themselves
        return cls(values, found, tail, columns, ruled_out, narrowed=False, rule=rule)

    def pack(self) -> dict[str, Tensor]:
        """What it is given, and how many columns there are."""
        parts = {"values": self.values, "index": self.index, "tail": self.tail, "columns": torch.tensor(self.shape[1])}
        parts |= {"rule": torch.tensor(RULES.index(self.rule))} if self.partial else {}
        return parts if self.ruled_out is None else {**parts, "ruled_out": self.ruled_out}

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> TopKLogits:
        """Of what it was given."""
        values, index, tail, columns = (parts[name] for name in ("values", "index", "tail", "columns"))
        rule = RULES[int(parts["rule"])] if "rule" in parts else "spread"
        return cls(values, index, tail, int(columns), parts.get("ruled_out"), rule=rule)

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Rows of log-probabilities over all columns."""
        values, index, rest = self.values[start:stop], self.index[start:stop], self._rest(slice(start, stop))
        if out is None:
            out = rest.new_empty(len(rest), self.shape[1])
        with torch.no_grad():
            out.copy_(rest[:, None].expand_as(out))
            if self.ruled_out is not None:
                out.masked_fill_(unpacked(self.ruled_out[start:stop], self.shape[1]), float("-inf"))
            if not self.narrowed:
                return out.scatter_(1, index.long(), values)
            row, at = (index < self.shape[1]).nonzero(as_tuple=True)
            out[row, index[row, at].long()] = values[row, at]
        return out

    def facing(self, student: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The student's and its own logits ``[n, k]`` of the columns that are named; with `bucket` ``[n, k + 1]``.

        The last is then that of all other columns together. Columns that were narrowed away are -inf on both sides.
        """
        if not self.partial:
            return super().facing(student, start, stop)
        values, index, tail = self.values[start:stop], self.index[start:stop].long(), self.tail[start:stop]
        student = student.to(torch.promote_types(student.dtype, torch.float32))
        there = index < self.shape[1]
        own = student if self.rule == "renormalise" else student.log_softmax(1)
        own = own.gather(1, index.where(there, 0))
        if self.narrowed:
            own, values = own.masked_fill(~there, float("-inf")), values.masked_fill(~there, float("-inf"))
        if self.rule == "renormalise" or index.shape[1] >= self.shape[1]:
            return own, values
        return torch.cat([own, self._beyond(student, index)[:, None]], 1), torch.cat([values, tail[:, None]], 1)

    def _beyond(self, student: Tensor, index: Tensor) -> Tensor:
        """The logarithm of a student's mass on columns that are not named, ``[n]``; -inf where there is none."""
        named = index.new_zeros((len(index), self.shape[1] + 1), dtype=torch.bool)
        named.scatter_(1, index.clamp_max(self.shape[1]), True)
        others = student.masked_fill(named[:, :-1], float("-inf"))
        empty = others.isneginf().all(1)
        others = others.masked_fill(empty[:, None], 0.0)  # whose gradient would be NaN, and is not used
        return (others.logsumexp(1) - student.logsumexp(1)).masked_fill(empty, float("-inf"))

    def _rest(self, at: slice) -> Tensor:
        """The log-probability of each column that is neither named nor ruled out, by row."""
        return self.tail[at] - self._others(at, self.shape[1]).clamp_min(1).to(self.dtype).log()

    def _others(self, at: slice, columns: int) -> Tensor:
        """How many of the first so many columns are neither named nor ruled out, by row."""
        others = columns - (self.index[at] < columns).sum(1)
        return others if self.ruled_out is None else others - unpacked(self.ruled_out[at], columns).sum(1)

    def leaves(self) -> tuple[Tensor, ...]:
        """Columns' log-probabilities and numbers, the tail, and what is ruled out, if anything is."""
        found = self.values, self.index, self.tail
        return found if self.ruled_out is None else (*found, self.ruled_out)

    def of(self, *rows: Tensor) -> TopKLogits:
        """Other rows over as many columns."""
        values, index, tail, *ruled_out = rows
        return TopKLogits(values, index, tail, self.shape[1], *ruled_out, narrowed=self.narrowed, rule=self.rule)

    def ruled(self, rule: str) -> TopKLogits:
        """The same with another rule for its tail."""
        found = TopKLogits(self.values, self.index, self.tail, self.shape[1], self.ruled_out, rule=rule)
        found.narrowed = self.narrowed
        return found

    def joined(self, others: Sequence[Lazy]) -> Lazy:
        """Its rows and those of others, one after the other; some may rule nothing out."""
        parts = [part for part in (self, *others) if isinstance(part, TopKLogits)]
        if all(part.ruled_out is None for part in parts):
            return super().joined(others)
        first, *more = [part._with_bits() for part in parts]
        return super(TopKLogits, first).joined(more)

    def _with_bits(self) -> TopKLogits:
        if self.ruled_out is not None:
            return self
        return self.of(*self.leaves(), _nowhere(len(self), self.shape[1], self.device))

    def narrow(self, vocabulary: int) -> TopKLogits:
        """The first so many columns, renormalised; the others' share of the tail goes with them."""
        kept = self.index < vocabulary
        others = self._others(slice(None), vocabulary).to(self.dtype)
        tail = self._rest(slice(None)) + others.log()
        tail = torch.where(others > 0, tail, float("-inf"))  # also where nothing was in the tail before
        mass = torch.cat([self.values.where(kept, float("-inf")), tail[:, None]], 1).logsumexp(1)
        bits = None if self.ruled_out is None else packed(unpacked(self.ruled_out, vocabulary))
        values = self.values - mass[:, None]
        return TopKLogits(values, self.index, tail - mass, vocabulary, bits, narrowed=True, rule=self.rule)

    def detach(self) -> TopKLogits:
        """Itself: no gradient passes."""
        return self

    def to(self, device: torch.device | str) -> TopKLogits:
        """The same on a device."""
        return self if torch.device(device) == self.device else self.of(*(part.to(device) for part in self.leaves()))


@torch.no_grad()
def likeliest(logits: Tensor | Lazy, k: int) -> Tensor:
    """Of logits ``[N, V]`` the k likeliest columns of each row, ``[N, k]`` int32; of large ones some rows at a time."""
    count, columns = logits.shape
    step = max(1, min(count, LARGE // columns))
    index = torch.empty((count, k), dtype=torch.int32, device=logits.device)
    for start in range(0, count, step):
        stop = min(start + step, count)
        rows = logits.rows(start, stop) if isinstance(logits, Lazy) else logits[start:stop]
        index[start:stop] = rows.topk(k)[1]
    return index


def packed(mask: Tensor) -> Tensor:
    """A mask ``[N, V]`` as bits, ``[N, ceil(V / 8)]`` uint8; the lowest bit is of the first column."""
    short = -mask.shape[1] % 8
    bits = torch.nn.functional.pad(mask, (0, short)).view(len(mask), -1, 8)
    return (bits.to(torch.uint8) << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(-1, dtype=torch.uint8)


def unpacked(bits: Tensor, columns: int) -> Tensor:
    """The mask ``[N, columns]`` of such bits, which may be of more columns."""
    mask = (bits[..., None] >> torch.arange(8, dtype=torch.uint8, device=bits.device)) & 1
    return mask.flatten(1)[:, :columns].bool()


def _nowhere(rows: int, columns: int, device: torch.device) -> Tensor:
    """Bits that rule out nothing."""
    return torch.zeros((rows, -(-columns // 8)), dtype=torch.uint8, device=device)
