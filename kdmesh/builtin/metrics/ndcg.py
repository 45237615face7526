"""Normalised discounted cumulative gain of the first k candidates.

Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", 2002. Of tied scores the mean over their
orders: McSherry and Najork, 2008.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.metrics._ranks import PerQuery, Ranks, shared


class NDCG(PerQuery):
    """``mean_q DCG@k / best DCG@k``, with ``DCG@k = sum_{r=1..k} g_r / log2(r + 1)``; at most 1.

    ``g_r``: the label of the candidate at rank r, as it is (gains ``2^g - 1`` are another convention; of labels 0 and
    1 both are the same). The best is that of the candidates sorted by label. A group of equal scores shares the mean
    worth of its ranks. Queries without a relevant candidate are left out.
    """

    def __init__(self, k: int = 10) -> None:
        super().__init__()
        self.k = k

    def figure(self, found: Ranks) -> Tensor:
        """Each list's gain by the best there is."""
        places = torch.arange(found.gains.shape[1], dtype=torch.float64)
        worth = torch.where(places < self.k, 1 / (places + 2).log2(), 0)
        best = (found.gains.sort(1, descending=True).values * worth).sum(1)
        return (found.gains * shared(worth, found)).sum(1) / best
