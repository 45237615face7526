"""Handwritten digits that ship inside scikit-learn: no download, seconds to learn.

E. Alpaydin and C. Kaynak, "Cascading classifiers", Kybernetika 34(4), 1998.
"""

from __future__ import annotations

import torch

from kdmesh.streams.table import Table


def digits() -> Table:
    """Return 1,797 images ``[N, 1, 8, 8]`` with values 0 .. 1 in sixteenths, ten classes, no official test split."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels).float().div_(16).reshape(-1, 1, 8, 8)
    return Table(
        x,
        torch.from_numpy(target).to(torch.int64),
        classes=10,
        labels=[str(digit) for digit in range(10)],
        licence="see scikit-learn and the UCI repository",
        source="sklearn.datasets.load_digits",
        divided_by=16,
    )
