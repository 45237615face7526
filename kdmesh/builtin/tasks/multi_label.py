"""Multi-label classification: K labels, of which any number holds of a sample.

Tsoumakas and Katakis, "Multi-Label Classification: An Overview", 2007. Distilled label by label, as in Yang et al.,
"Multi-Label Knowledge Distillation", ICCV 2023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.contracts.task import Chance, Task
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.table import Table


class MultiLabel(Task):
    """Labels ``[N, K]`` int64, 0 or 1; one of K logits a label, whose sigmoid is the label's probability.

    Chance: to answer the same of every sample, whose average precision is each label's share of rows.
    """

    def refuse(self, table: Table) -> None:
        """There must be labels to learn."""
        if table.y is None:
            instead = "indicators: [COLUMN, ...], or another data set with labels"
            raise MeshError("these data have no labels to learn", where="data.dataset", instead=instead)

    def outputs(self, table: Table) -> int:
        """An output per label."""
        return 0 if table.y is None else table.y.shape[1]

    def decide(self, scores: Tensor) -> Tensor:
        """Which labels hold, ``[N, K]`` int64, those whose probability is above 0.5: sources agree label by label."""
        return (scores > 0).to(torch.int64)

    def chance(self, labels: Tensor) -> Chance | None:
        """Mean average precision of a constant answer; None where some label holds of no sample."""
        shares = labels.double().mean(0)
        if not bool((shares > 0).all()):
            return None
        return Chance("mean_average_precision", shares.mean().item(), "the same answer always")
