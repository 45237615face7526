"""Recall at k: the share of a query's relevant candidates that stand among its first k.

Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, chapter 8. Of tied scores the mean over
their orders: McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of
Tied Scores", 2008.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.metrics._ranks import PerQuery, Ranks, shared


class RecallAtK(PerQuery):
    """``mean_q |relevant in the first k| / |relevant|``, from 0 to 1. Whatever is above 0 is relevant.

    A query with more than k relevant candidates cannot reach 1, one with at most k candidates always does. A group of
    equal scores that stands on both sides of k counts by its share. Queries without a relevant candidate are left out.
    """

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.k = k

    def figure(self, found: Ranks) -> Tensor:
        """Each list's share."""
        relevant = (found.gains > 0).double()
        worth = (torch.arange(relevant.shape[1]) < self.k).double()
        return (relevant * shared(worth, found)).sum(1) / relevant.sum(1)
