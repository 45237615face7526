"""Handwritten digits that ship inside scikit-learn: no download, seconds to learn.

E. Alpaydin and C. Kaynak, "Cascading classifiers", Kybernetika 34(4), 1998.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from kdmesh.streams.table import Table

FILE = "datasets/data/digits.csv.gz"  # within the package: to import that takes longer than a small mesh does


def digits() -> Table:
    """Return 1,797 images ``[N, 1, 8, 8]`` with values 0 .. 1 in sixteenths, ten classes, no official test split."""
    rows = torch.from_numpy(_rows())
    return Table(
        rows[:, :-1].float().div_(16).reshape(-1, 1, 8, 8),
        rows[:, -1].to(torch.int64),
        classes=10,
        labels=[str(digit) for digit in range(10)],
        licence="see scikit-learn and the UCI repository",
        source="sklearn.datasets.load_digits",
        divided_by=16,
    )


def _rows() -> np.ndarray:
    """Pixels and, last, the digit of every image: of scikit-learn's file where that is found, else by its loader."""
    found = find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder) / FILE).is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    return np.column_stack(load_digits(return_X_y=True))
