"""Handwritten digits with labels that are made from their classes: what is true of the number that is written.

The images: E. Alpaydin and C. Kaynak, "Cascading classifiers", Kybernetika 34(4), 1998.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from kdmesh.builtin.datasets.digits import digits
from kdmesh.streams.table import Table

ATTRIBUTES = {
    "even": (0, 2, 4, 6, 8),
    "above four": (5, 6, 7, 8, 9),
    "prime": (2, 3, 5, 7),
    "multiple of three": (0, 3, 6, 9),
    "has a loop": (0, 6, 8, 9),
}
"""Of which digits each label holds. A written four may have a loop too; here it has none."""


def digit_attributes() -> Table:
    """Return 1,797 images ``[N, 1, 8, 8]`` and five labels ``[N, 5]`` that follow from the digit."""
    table = digits()
    assert table.y is not None
    holds = torch.zeros(10, len(ATTRIBUTES), dtype=torch.int64)
    for number, members in enumerate(ATTRIBUTES.values()):
        holds[list(members), number] = 1
    return replace(
        table,
        y=holds[table.y],
        classes=0,
        labels=list(ATTRIBUTES),
        columns={"digit": [str(digit) for digit in table.y.tolist()]},
        source="sklearn.datasets.load_digits, with labels made from its classes",
    )
