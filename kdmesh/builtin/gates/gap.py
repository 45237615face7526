"""A teacher pauses while its student is too far behind.

Qian, Wang, Yin, Hong and Wang, "Switchable Online Knowledge Distillation" (SwitOKD), 2022; as in the authors' code, all
distances are means over the batch, and a teacher that is no better than its student is not paused.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from kdmesh.builtin.gates.offers import GapConfig
from kdmesh.contracts.gate import Gate
from kdmesh.spec.settings import checked_by


@checked_by(GapConfig)
class Gap(Gate):
    """Shut if ``G > d`` and ``T < S``, for the update of the teacher, whose student the mesh names with `of`:

    - ``G = |p_s - p_t|_1``, ``T = |p_t - y|_1``, ``S = |p_s - y|_1``: means over the batch, of ``p = softmax(z /
      temperature)`` and one-hot labels y;
    - ``d = S - exp(-T / (S + T)) T``.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, *, own: Tensor, other: Tensor, labels: Tensor, **facts: Any) -> bool:
        """Decide; ``own [B, C]`` are the teacher's logits, who has the gate; ``other`` its student's."""
        teacher, taught = ((z / self.temperature).softmax(-1) for z in (own, other))
        truth = F.one_hot(labels, teacher.shape[-1]).to(teacher.dtype)
        gap, mine, theirs = (
            (one - another).abs().sum(-1).mean().item()
            for one, another in ((taught, teacher), (teacher, truth), (taught, truth))
        )
        if not mine + theirs:
            return True  # both are right beyond doubt
        threshold = theirs - math.exp(-mine / (mine + theirs)) * mine
        return not (gap > threshold and mine < theirs)
