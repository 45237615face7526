"""Attackers: members of a mesh that lie on purpose, to try consensus rules on.

Roux, Zimmer and Pokutta, "On the Byzantine-Resilience of Distillation-Based Federated Learning", 2024, call the first
one the loss maximisation attack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

CERTAIN = 100.0  # a logit so much larger than the others that softmax is one-hot, also at T = 10


class LeastLikely(nn.Module):
    """Say, with certainty, the class that ``honest`` finds least likely: ``[B, ...] -> logits [B, C]``."""

    def __init__(self, honest: nn.Module) -> None:
        super().__init__()
        self.honest = honest

    def forward(self, x: Tensor) -> Tensor:
        """Return ``CERTAIN`` for the least likely class and 0 for the others."""
        logits = self.honest(x)
        return torch.zeros_like(logits).scatter(-1, logits.argmin(-1, keepdim=True), CERTAIN)


class Committee(nn.Module):
    """What members say together: the logarithm of their mean probability, ``[B, ...] -> [B, C]``.

    ``LeastLikely(Committee(honest members))`` is an attacker that knows the others' answers.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Return log probabilities."""
        spoken = torch.stack([member(x).log_softmax(-1) for member in self.members])
        return spoken.logsumexp(0) - math.log(len(self.members))
