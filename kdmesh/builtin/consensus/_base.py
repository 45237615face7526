"""What consensus rules share."""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.contracts.rule import Rule
from kdmesh.errors import MeshError


def uniform(logits: Tensor, present: Tensor | None) -> Tensor:
    """Equal weights ``[M, B]`` over the present sources."""
    if present is None:
        return logits.new_full(logits.shape[:2], 1.0 / logits.shape[0])
    return present.to(logits.dtype) / present.sum(0).clamp(min=1)


def silenced(values: Tensor, present: Tensor | None, fill: float = 0.0) -> Tensor:
    """Put ``fill`` for the absent sources of ``values [M, B, ...]``, so that a NaN there reaches no gradient."""
    if present is None:
        return values
    return torch.where(present.view(*present.shape, *[1] * (values.dim() - 2)), values, fill)


def present_of(values: Tensor, present: Tensor | None) -> Tensor:
    """The mask of present sources ``[M, B]``, all true by default."""
    return torch.ones(values.shape[:2], dtype=torch.bool, device=values.device) if present is None else present


def normalised(mass: Tensor) -> Tensor:
    """Make distributions of ``mass [..., C]``: negatives become 0, rows sum to 1, a row without mass is uniform."""
    mass = mass.clamp_min(0.0)
    total = mass.sum(-1, keepdim=True)
    return torch.where(total > 0, mass / total.clamp_min(torch.finfo(mass.dtype).tiny), 1.0 / mass.shape[-1])


def complement(shares: Tensor, present: Tensor) -> Tensor:
    """Weights ``(1 - share) / (n - 1)`` of the n present sources, given shares that sum to 1 over them; 1 if n = 1."""
    count = present.sum(0)
    return torch.where(count > 1, (1.0 - shares) * present / (count - 1).clamp(min=1), present.to(shares.dtype))


def label_losses(rule: Rule, logits: Tensor, labels: Tensor | None, present: Tensor | None, absent: float) -> Tensor:
    """Cross-entropy of every source ``[M, B]``, finite, and ``absent`` for the absent; MeshError without labels."""
    if labels is None:
        raise MeshError(
            f"{type(rule).__name__} compares its sources on labels, and this stream has none",
            instead="a stream with labels, or a rule without: mean, entropy, median",
        )
    log_probs = silenced(logits, present).log_softmax(-1)
    losses = -log_probs.gather(-1, labels.expand(logits.shape[0], -1)[..., None])[..., 0]
    return silenced(losses.clamp(max=torch.finfo(losses.dtype).max), present, absent)
