"""Mean reciprocal rank of the first relevant candidate.

Voorhees, "The TREC-8 Question Answering Track Report", 1999. Of tied scores the mean over their orders: McSherry and
Najork, 2008.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.builtin.metrics._ranks import PerQuery, Ranks


class MRR(PerQuery):
    """``mean_q 1 / r_q``, where ``r_q`` is the rank of the first relevant candidate, from 1; at most 1.

    Whatever is above 0 is relevant. Where the first relevant candidate shares its score with others, the mean of
    ``1 / r_q`` over all orders of these. Queries without a relevant candidate are left out.
    """

    def figure(self, found: Ranks) -> Tensor:
        """The first group of equal scores that holds a relevant candidate, and where in it that one may stand."""
        relevant = found.gains > 0
        length = found.above.shape[1]
        start = torch.where(relevant, found.above, length).amin(1)
        group = found.there & (found.above == start[:, None])
        size, right = group.sum(1).double(), (group & relevant).sum(1).double()
        value, waiting = torch.zeros_like(size), torch.ones_like(size)
        for place in range(int(size.max()) if len(size) else 0):  # the chance that it is the first that is relevant
            hit = waiting * (right / (size - place).clamp_min(1)).clamp_max(1)
            value = value + hit / (start + place + 1)
            waiting = waiting - hit
        return value
