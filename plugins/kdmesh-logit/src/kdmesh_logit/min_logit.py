"""Min-logit: of every class, what the source says that separates it best from the true one.

Guo, Wang, Wu, Yu, Liang, Hu and Luo, "Online Knowledge Distillation via Collaborative Learning", 2020 (KDCL-MinLogit).
"""

from __future__ import annotations

import torch
from kdmesh.consensus import Rule, silenced
from torch import Tensor

from kdmesh_logit._labels import known


class MinLogit(Rule):
    """``z_c = min_m (z_mc - z_my)``: logits relative to the true class y, the smallest over the present sources.

    Of space `logits`: readers apply their temperature to the result. Needs labels. Exactly invariant to the order of
    sources. The cross-entropy of the result is at most that of the best source.
    """

    space = "logits"

    def forward(
        self, values: Tensor, *, logits: Tensor, labels: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return logits ``[B, C]``, 0 at the true class; zeros where no source is present."""
        own = known(self, labels).expand(values.shape[0], -1)[..., None]
        values = silenced(values, present)
        lowest = silenced(values - values.gather(-1, own), present, float("inf")).amin(0)
        return lowest if present is None else torch.where(present.any(0)[:, None], lowest, 0.0)
