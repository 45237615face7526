"""Top-k logits: the likeliest columns of each row, and how much is left for all others."""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.signals.crossing import LARGE
from kdmesh.signals.lazy import Lazy


class Sparse(Lazy):
    """Log-probabilities of a few columns of each row, as logits over all of them: 2k + 1 numbers for a row of V.

    ``values [N, k]``: at least float32, of the columns ``index [N, k]`` (int32, different ones within a row);
    ``tail [N]``: the logarithm of the mass of all other columns together.

    The convention: the tail's mass is spread evenly over the other columns, so that a row is a distribution and no mass
    is lost. Lost is what stood in the tail: a reader learns that it is flat. So is a row's offset, which a softmax does
    not see and a comparison of logits themselves does. Elsewhere the k columns are compared alone, renormalised, which
    teaches more certainty than the source has; or with one bucket for the rest, of which only the sum is taught. A
    column that the source rules out (-inf) has its share of the tail too.

    An ``index`` from ``columns`` on is of a column that was narrowed away. No gradient passes.
    """

    def __init__(self, values: Tensor, index: Tensor, tail: Tensor, columns: int) -> None:
        self.values, self.index, self.tail = values, index, tail
        super().__init__(torch.Size((len(values), columns)), values.dtype, values.device, False)

    @classmethod
    @torch.no_grad()
    def top(cls, logits: Tensor | Lazy, k: int) -> Sparse:
        """Of logits ``[N, V]`` the k likeliest columns, ``1 <= k <= V``; where these are large, some rows at a time."""
        count, columns = logits.shape
        step = max(1, min(count, LARGE // columns))
        dtype = torch.promote_types(logits.dtype, torch.float32)
        most = step if isinstance(logits, Lazy) else 0
        buffer = torch.empty((most, columns), dtype=logits.dtype, device=logits.device)
        values = torch.empty((count, k), dtype=dtype, device=logits.device)
        index, tail = torch.empty_like(values, dtype=torch.int32), values.new_empty(count)
        for start in range(0, count, step):
            at = slice(start, min(start + step, count))
            out = buffer[: at.stop - start]
            rows = logits.rows(start, at.stop, out) if isinstance(logits, Lazy) else logits[at]
            rows = rows.to(dtype)
            best, places = rows.topk(k)
            mass = rows.logsumexp(1)
            values[at], index[at] = best - mass[:, None], places
            tail[at] = rows.scatter(1, places, float("-inf")).logsumexp(1) - mass
        return cls(values, index, tail, columns)

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Rows of log-probabilities over all columns."""
        values, index, rest = self.values[start:stop], self.index[start:stop], self._rest(slice(start, stop))
        if out is None:
            out = rest.new_empty(len(rest), self.shape[1])
        with torch.no_grad():
            out.copy_(rest[:, None].expand_as(out))
            row, at = (index < self.shape[1]).nonzero(as_tuple=True)
            out[row, index[row, at].long()] = values[row, at]
        return out

    def _rest(self, at: slice) -> Tensor:
        """The log-probability of each column that is not named, by row."""
        others = self.shape[1] - (self.index[at] < self.shape[1]).sum(1)
        return self.tail[at] - others.clamp_min(1).to(self.dtype).log()

    def apart(self) -> tuple[Tensor, ...]:
        """Columns' log-probabilities and numbers, and the tail."""
        return self.values, self.index, self.tail

    def of(self, *rows: Tensor) -> Sparse:
        """Other rows over as many columns."""
        values, index, tail = rows
        return Sparse(values, index, tail, self.shape[1])

    def narrow(self, vocabulary: int) -> Sparse:
        """The first so many columns, renormalised; the others' share of the tail goes with them."""
        kept = self.index < vocabulary
        others = (vocabulary - kept.sum(1)).to(self.dtype)
        tail = self._rest(slice(None)) + others.log()
        tail = torch.where(others > 0, tail, float("-inf"))  # also where nothing was in the tail before
        mass = torch.cat([self.values.where(kept, float("-inf")), tail[:, None]], 1).logsumexp(1)
        return Sparse(self.values - mass[:, None], self.index, tail - mass, vocabulary)

    def detach(self) -> Sparse:
        """Itself: no gradient passes."""
        return self

    def to(self, device: torch.device | str) -> Sparse:
        """The same on a device."""
        return self if torch.device(device) == self.device else self.of(*(part.to(device) for part in self.apart()))
