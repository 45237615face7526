"""What is unlike the rest: one of each group of near duplicates before a second of any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from kdmesh.errors import MeshError
from kdmesh.selection.criterion import Criterion
from kdmesh.streams.order import permutation

if TYPE_CHECKING:
    from torch import Tensor

CLOSEST = 0.1  # of all samples: how far these are from their nearest one is near, where no distance is given
MOST = 50_000  # samples whose distances to all others are computed


class Diversity(Criterion):
    """``1 / r`` for the sample that comes r-th in its group, in an order drawn by the seed.

    A group: samples that hang together by steps of at most ``near``, the Euclidean distance of what a model is given
    (numbers as they are; of texts how often each of 512 classes of three tokens in a row occurs, of length 1). By
    default ``near`` is the distance to the nearest other sample that a tenth of all samples are within.
    """

    needs = ()
    whole = True

    def __init__(self, near: float | None = None) -> None:
        self.near = near

    def samples(self, values: Tensor, seed: int) -> Tensor:
        """See the class. MeshError for more samples than can be compared with each other."""
        from scipy.sparse.csgraph import connected_components
        from sklearn.neighbors import NearestNeighbors

        if len(values) > MOST:
            what = f"{len(values)} samples would each be compared with all others"
            raise MeshError(what, where="--by diversity", instead=f"a stream of at most {MOST}")
        points = values.double().numpy()
        found = NearestNeighbors().fit(points)
        near = self.near
        if near is None:
            nearest = found.kneighbors(n_neighbors=1)[0][:, 0] if len(points) > 1 else np.zeros(1)
            near = float(np.quantile(nearest, CLOSEST))
        group = connected_components(found.radius_neighbors_graph(points, near), directed=False)[1]
        scores = torch.empty(len(points), dtype=torch.float64)
        met: dict[int, int] = {}
        for at in permutation(len(points), seed, "diversity").tolist():
            met[group[at]] = met.get(group[at], 0) + 1
            scores[at] = 1 / met[group[at]]
        return scores
