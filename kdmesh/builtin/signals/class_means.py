"""Means of a layer for each class: prototypes.

Tan, Long, Liu, Zhou, Lu, Jiang and Zhang, "FedProto: Federated Prototype Learning across Heterogeneous Clients", 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class ClassMeans:
    """``make(h [N, ...], labels=[N], classes=K) -> ([K, D], known [K])``: ``mean of h_i where y_i = k``, flat.

    A class without samples has zeros and is not known. How many samples a mean is of does not cross: a consensus of
    several counts them alike, as the published code does.
    """

    def __call__(self, value: Tensor, *, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Return the means, of the layer's type, and which classes have samples."""
        rows = value.flatten(1)
        if len(rows) != len(labels):
            raise ValueError(f"the layer has {len(rows)} rows for {len(labels)} samples: one that has a row for each")
        counts = torch.bincount(labels, minlength=classes)
        sums = rows.new_zeros(classes, rows.shape[1]).index_add(0, labels, rows)
        return sums / counts.clamp(min=1)[:, None], counts > 0
