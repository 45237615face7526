"""What objectives between different tokenizers share: which rows are about the same text, and figures about that.

A row's span is ``(sample in the batch, first character, character after the last)``. Rows of a side stand in the order
of samples and, within one, of the text.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kdmesh.builtin.objectives._numerics import at_least_float32
from kdmesh.signals.lazy import Lazy, dense

PIECE = 2**22  # elements of the larger side that are worked on at once


def spans_of(spans: Tensor | None, source_spans: Tensor | None, rows: int, source_rows: int) -> tuple[Tensor, Tensor]:
    """Both sides' spans, one per row, on a CPU; ValueError otherwise.

    How many rows are paired depends on the spans: a GPU would wait at every step of finding out, and so waits once.
    """
    if spans is None or source_spans is None:
        raise ValueError("rows of different tokenizers are compared by `spans` and `source_spans`, which are missing")
    if (len(spans), len(source_spans)) != (rows, source_rows):
        raise ValueError(f"{len(spans)} and {len(source_spans)} spans for {rows} and {source_rows} rows")
    return spans.cpu(), source_spans.cpu()


def paired(spans: Tensor, source_spans: Tensor) -> tuple[Tensor, Tensor]:
    """Pair the first rows of each sample, the second, and so on to the end of the shorter side: row numbers ``[P]``."""
    samples = int(max((side[:, 0].max() for side in (spans, source_spans) if len(side)), default=-1)) + 1
    counts, others = (side[:, 0].bincount(minlength=samples) for side in (spans, source_spans))
    rank = torch.arange(len(spans), device=spans.device) - (counts.cumsum(0) - counts)[spans[:, 0]]
    own = (rank < others[spans[:, 0]]).nonzero().squeeze(1)
    return own, (others.cumsum(0) - others)[spans[own, 0]] + rank[own]


def grouped(spans: Tensor, source_spans: Tensor) -> tuple[Tensor, Tensor, int]:
    """Number the smallest common spans, and say in which one each row lies: ``[N]``, ``[M]`` and how many there are.

    Rows that share a character share a span, on one side or across, so that both sides have a boundary wherever a span
    begins or ends. Characters that a side's rows leave out (white space that a tokenizer drops) belong to either
    neighbour. Rows about no character (the end of a text) share a span with those about none at the same place.
    """
    sample, start, end = torch.cat([spans, source_spans]).unbind(1)
    some = (end > start).long()
    # open intervals on a line where each place between characters has room for what is about none
    low, high = 2 * start + some, 2 * end + 1 - some
    stride = high.max() + 1 if len(high) else 1
    low, high = low + sample * stride, high + sample * stride
    order = low.argsort(stable=True)
    begins = torch.ones_like(low)
    begins[1:] = low[order][1:] >= high[order].cummax(0).values[:-1]
    number = torch.empty_like(low).scatter_(0, order, begins.cumsum(0) - 1)
    return number[: len(spans)], number[len(spans) :], int(begins.sum())


def compared(compare: Callable[[Tensor], Tensor], pairs: int, width: int, device: torch.device) -> Tensor:
    """``compare(numbers of pairs)`` for ``pairs`` pairs of rows, each of ``width``: a loss for each ``[P]``.

    Large signals are compared piece by piece; the backward pass makes each piece anew.
    """
    every = torch.arange(pairs, device=device)
    pieces = every.split(max(1, PIECE // max(width, 1)))
    if len(pieces) < 2:
        return compare(every)
    return torch.cat([checkpoint(compare, at, use_reentrant=False, preserve_rng_state=False) for at in pieces])


def picked(values: Tensor | Lazy, index: Tensor) -> Tensor:
    """Some rows of a signal, at least float32."""
    return at_least_float32(values[index] if isinstance(values, Tensor) else dense(values.take(index)))


class Counted(nn.Module):
    """Counts rows, for :meth:`report`. ``names``: what share of the student's rows is which."""

    names: tuple[str, ...] = ("coverage",)

    def __init__(self) -> None:
        super().__init__()
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(1 + len(self.names), dtype=torch.int64))

    def count(self, rows: int, *shares: int) -> None:
        """Add a batch: its student's rows, and how many of them are what each name says."""
        self.counts += torch.tensor((rows, *shares), device=self.counts.device)

    def report(self) -> dict[str, float]:
        """Shares of all the student's rows so far, 0 to 1; nothing before the first."""
        total, *shares = self.counts.tolist()
        return {name: share / total for name, share in zip(self.names, shares, strict=True)} if total else {}
