"""From scores to a choice: ranks are averaged over criteria, and each class keeps its share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.streams.order import permutation
from kdmesh.streams.splits import quotas

if TYPE_CHECKING:
    from torch import Tensor


def ranked(scores: dict[str, Tensor], count: int, seed: int) -> Tensor:
    """Positions of all ``count`` samples, best first.

    Of several criteria the ranks are averaged, from 0, the smallest score, to 1; equal scores have equal ranks. Ties,
    and all of it where there is no criterion, are in an order that is drawn by the seed.
    """
    from scipy.stats import rankdata

    mixed = permutation(count, seed, "select")
    if not scores:
        return mixed
    ranks = [torch.from_numpy(rankdata(one.numpy(), "average")) for one in scores.values()]
    whole = torch.stack(ranks).mean(0)[mixed]
    return mixed[whole.argsort(descending=True, stable=True)]


def first(order: Tensor, keep: int, classes: Tensor | None) -> Tensor:
    """The first ``keep`` of samples in an order ``[N]``; of each class as many as its share, where there are classes.

    ``classes``: of each sample by position, ``[N]`` int64. The order stays.
    """
    if classes is None:
        return order[:keep]
    of = classes[order]
    known, counts = of.unique(return_counts=True)
    taken = torch.zeros(len(order), dtype=torch.bool)
    for one, share in zip(known.tolist(), quotas(counts.tolist(), keep), strict=True):
        taken[(of == one).nonzero()[:share, 0]] = True
    return order[taken]
