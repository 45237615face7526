"""Whether an answer has the same bits wherever it stands in a forward: only such answers can be kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.hosts import guard
from kdmesh.signals.lazy import leaves
from kdmesh.streams.tokens import ranges, starts_of

if TYPE_CHECKING:
    from collections.abc import Callable

PLACE = "the last bits of an answer depend on its place in a forward, or on the others there"
MKL = "MKL_CBWR"  # the environment's variable by which MKL chooses its kernels


def moves(ask: Callable[[Tensor], dict[str, Any]], some: Tensor, counts: Callable[[str, Tensor], Tensor | None]) -> str:
    """Ask for some samples ``[n]`` in several orders; return why answers cannot be kept, "" where they are the same.

    ``ask``: the values, by name, of samples in this order; ``counts``: how many rows of a value each of them has, None
    where each has one.
    """
    try:
        with guard.seeded(0, strict=True):
            first = ask(some)
            for order in _orders(len(some)):
                again = ask(some[order])
                for name, value in first.items():
                    rows = counts(name, some)
                    index = order if rows is None else ranges(starts_of(rows)[order], rows[order])
                    for leaf, other in zip(leaves(value), leaves(again[name]), strict=True):
                        if not guard.same(leaf[index.to(leaf.device)], other):
                            return _placed(first)
    except ValueError as why:
        return str(why)
    return ""


def _placed(answers: dict[str, Any]) -> str:
    """That answers depend on their place; where a setting of MKL may keep them from it, which."""
    wide = {"AVX2": "AVX2", "AVX512": "AVX512", "AMX": "AVX512"}.get(torch.backends.cpu.get_cpu_capability().upper())
    here = all(leaf.device.type == "cpu" for value in answers.values() for leaf in leaves(value))
    if wide is None or not here or MKL in os.environ or not torch.backends.mkl.is_available():
        return PLACE
    return f"{PLACE}; {MKL}={wide},STRICT in the environment, before kdmesh starts, may have rows summed alike"


def _orders(count: int) -> list[Tensor]:
    """Orders in which each of some samples comes to stand in other places: by what is left by 2, 4 and 8, too."""
    rising = torch.arange(count)
    return [rising.flip(0), *(rising.roll(by) for by in (1, 2, 5))]
