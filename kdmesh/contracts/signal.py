"""A batch of knowledge: values, the form they are in, and which samples have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Signal:
    """What a flow carries for one batch.

    ``value``: ``[B, C]`` for `logits` and `probs`, a tensor or a `Lazy` that is not made yet; ``[B]`` for `labels`,
    ``[B, ...]`` for `hidden`. ``probs`` are already at their consensus' temperature. ``weights [B]``: factors of
    samples, 0 where the producer abstains; None means one everywhere. In tasks that ask for an answer per token, B
    counts these.
    """

    value: Any
    form: str = "logits"
    weights: Tensor | None = None
