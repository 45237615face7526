"""A batch of knowledge: values, the form they are in, and which samples have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Signal:
    """What a flow carries for one batch.

    ``value``: ``[B, C]`` for `logits` and `probs`, ``[B]`` for `labels`, ``[B, ...]`` for `hidden`. ``probs`` are
    already at their consensus' temperature. ``weights [B]``: per-sample factors, 0 where the producer abstains; None
    means one everywhere.
    """

    value: Tensor
    form: str = "logits"
    weights: Tensor | None = None
