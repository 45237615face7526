"""A data set in memory: samples, labels, and which rows belong to an official test split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Table:
    """Samples with stable ids: a sample's id is its row here, in the source's own order.

    ``x [N, ...]`` float32 (images as ``[N, channels, height, width]``, vectors as ``[N, features]``); ``y [N]`` int64
    in ``0 .. classes - 1``, or None for unlabelled data; ``official`` maps split names (`test`, perhaps `train`,
    `validation`) to row numbers; ``columns`` maps a column's name to one value per row (for shards by column).
    """

    x: Tensor
    y: Tensor | None
    classes: int
    official: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)  # names of the classes, where the source has them
    licence: str = "not stated"
    source: str = ""
    deterministic: bool = True  # false: reading a row twice gives two values; then nothing is cached

    @property
    def shape(self) -> torch.Size:
        """The shape of one sample."""
        return self.x.shape[1:]

    def __len__(self) -> int:
        return len(self.x)
