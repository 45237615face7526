"""ONE's gate: a small network reads the trunk's features and says how much each branch counts.

Lan, Zhu and Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", 2018. As in the published code the gate is
pooling, a linear layer, batch norm, ReLU and softmax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from kdmesh.consensus import Rule, present_of, weighted_sum
from torch import Tensor, nn
from torch.nn import functional as F

from kdmesh_gated._inputs import pooled, width

if TYPE_CHECKING:
    from collections.abc import Sequence


class Gate(Rule):
    """``sum_m g_m z_m`` with ``g = softmax(relu(BN(W h + b)))`` over the M sources, per sample.

    ``h`` is what the inputs say, pooled and side by side; usually one: the trunk's features. Of space `logits`.
    A gate belongs to its sources in their declared order. An absent source has weight 0, the others are renormalised.

    Batch norm uses the batch's statistics where gradients are computed on more than one sample, else the running ones.
    """

    space = "logits"

    def setup(self, sources: tuple[str, ...], classes: int, inputs: tuple[torch.Size, ...]) -> None:
        """Build the gate; called once, before training."""
        self.scores = nn.Linear(sum(width(shape) for shape in inputs), len(sources))
        self.norm = nn.BatchNorm1d(len(sources))

    def forward(
        self,
        values: Tensor,
        *,
        logits: Tensor,
        labels: Tensor | None = None,
        present: Tensor | None = None,
        inputs: Sequence[Tensor | None] = (),
    ) -> Tensor:
        """Combine logits ``[M, B, C]``, informed by ``inputs``, signals ``[B, ...]``."""
        scores = self.scores(torch.cat(pooled(inputs, self.scores.weight.dtype), -1))
        return weighted_sum(values, shares(F.relu(self._normed(scores)).T, values, present))

    def _normed(self, scores: Tensor) -> Tensor:
        norm = self.norm
        if self.training and torch.is_grad_enabled() and len(scores) > 1:
            normed: Tensor = norm(scores)
            return normed
        return F.batch_norm(scores, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def shares(scores: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
    """Softmax of ``scores [M, B]`` over the present sources, 0 for the absent, in the dtype of ``values``."""
    here = present_of(values, present)
    return scores.masked_fill(~here, torch.finfo(scores.dtype).min).softmax(0).to(values.dtype) * here
