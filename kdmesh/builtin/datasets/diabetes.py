"""Diabetes patients that ship inside scikit-learn: ten measurements, and how the disease stood a year later.

B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least Angle Regression", Annals of Statistics 32(2), 2004.
"""

from __future__ import annotations

import torch

from kdmesh.streams.table import Table

DIVISOR = 100


def diabetes() -> Table:
    """Return 442 patients ``[N, 10]`` and one value ``[N, 1]``: progression of the disease, in hundreds (0.25 to 3.46).

    Features have mean 0 and variance 1 over all patients.
    """
    from sklearn.datasets import load_diabetes

    known = load_diabetes()
    x = torch.from_numpy(known.data) * len(known.data) ** 0.5  # there each column's squares sum to 1
    return Table(
        x.float(),
        (torch.from_numpy(known.target) / DIVISOR).float()[:, None],
        classes=0,
        licence="see scikit-learn",
        source="sklearn.datasets.load_diabetes",
        features=list(known.feature_names),
    )
