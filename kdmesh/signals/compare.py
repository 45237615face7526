"""Two ways of computing the same rows, compared: what is rounding, and what is not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEAR = 1e-5
"""What float32 may differ by, on a scale of the largest number (at least 1)."""
HALF = 4
"""What 16-bit numbers may differ by where shapes or the order of operations differ, in units of their precision."""


@dataclass
class Comparison:
    """What was saved beside what was measured.

    ``by``: how the folder was read: `transformers`, `kdmesh.load`, or `weights` where no class is stored and only the
    file is compared; ``samples``: how many; ``difference``: the largest, None where none could be computed; ``limit``:
    what is rounding; ``file``: where the folder's numbers came from; ``problem``: what is wrong, "" where nothing is.
    """

    by: str
    samples: int = 0
    difference: float | None = 0.0
    limit: float = 0.0
    file: str = "model.safetensors"
    problem: str = ""

    def add(self, one: Tensor, two: Tensor, loose: bool = True) -> None:
        """Compare outputs; ``loose``: 16-bit numbers may be rounded otherwise, as those of other shapes are."""
        leaves, limit = difference(one, two), rounding(one, loose)
        self.difference, self.limit = max(self.difference or 0.0, leaves), max(self.limit, limit)
        if leaves > limit and not self.problem:
            self.problem = f"outputs differ by up to {leaves:.3g}, where {limit:.1g} is rounding"


def difference(one: Tensor, two: Tensor) -> float:
    """The largest difference; shapes that differ, and a number beside NaN, are infinitely far."""
    if one.shape != two.shape:
        return float("inf")
    one, two = one.cpu(), two.cpu()  # not every device has float64
    leaves = (one.double() - two.double()).abs()
    leaves[(one == two) | (one.isnan() & two.isnan())] = 0.0
    return float(leaves.nan_to_num(nan=float("inf")).max()) if leaves.numel() else 0.0


def rounding(values: Tensor, loose: bool = True) -> float:
    """What two ways of computing these may differ by."""
    finite = values.cpu().double().nan_to_num(posinf=0.0, neginf=0.0).abs()
    scale = max(1.0, float(finite.max())) if values.numel() else 1.0
    if values.dtype in (torch.float32, torch.float64):
        return NEAR * scale
    return HALF * torch.finfo(values.dtype).eps * scale if loose else 0.0
