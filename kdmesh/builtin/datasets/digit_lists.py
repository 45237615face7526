"""Lists of handwritten digits: an image asks for others of its digit. Made here of :func:`digits`, to try ranking on.

Nothing was collected as a ranking: an image is relevant to another exactly if both show the same digit.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from kdmesh.builtin.datasets.digits import digits
from kdmesh.streams.table import Table

SHARES = {"test": 0.2, "validation": 0.1}  # of the images; the rest are train
SEED = 0


def digit_lists(candidates: int = 8, relevant: int = 1) -> Table:
    """Return 1,797 queries ``[N, 1 + L, 64]``, each with L candidates, of which so many are relevant, ``[N, L]``.

    Every image is a query once. Candidates are drawn from the images of its own split, so that no image of a test list
    stands in a training list; the draws are seeded, and the same everywhere. All three splits are official.
    """
    source = digits()
    assert source.y is not None
    rows, y, parts = _drawn(candidates, relevant)
    return Table(
        source.tensor.flatten(1)[rows],
        y.clone(),
        classes=0,
        official={name: pool.sort().values for name, pool in parts.items()},
        licence=source.licence,
        source=f"{source.source}, paired: the same digit is relevant",
        divided_by=source.divided_by,
    )


@lru_cache(maxsize=4)  # a run reads its data twice, and to draw takes a third of a second
def _drawn(candidates: int, relevant: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Rows of the images in every list, ``[N, 1 + L]``, which are relevant, ``[N, L]``, and the rows of each split."""
    digit = digits().y
    assert digit is not None
    drawn = torch.Generator().manual_seed(SEED)
    order = torch.randperm(len(digit), generator=drawn)
    sizes = [round(share * len(digit)) for share in SHARES.values()]
    parts = dict(zip((*SHARES, "train"), order.split([*sizes, len(digit) - sum(sizes)]), strict=True))
    rows = torch.empty(len(digit), 1 + candidates, dtype=torch.int64)
    y = torch.zeros(len(digit), candidates)
    for pool in parts.values():
        for query in pool.tolist():
            same = digit[pool] == digit[query]
            right = _some(pool[same & (pool != query)], relevant, drawn)
            wrong = _some(pool[~same], candidates - relevant, drawn)
            mixed = torch.randperm(candidates, generator=drawn)
            rows[query, 0] = query
            rows[query, 1:] = torch.cat([right, wrong])[mixed]
            y[query] = (mixed < relevant).float()
    return rows, y, parts


def _some(pool: Tensor, count: int, drawn: torch.Generator) -> Tensor:
    """So many of a pool, each once."""
    return pool[torch.randperm(len(pool), generator=drawn)[:count]]
