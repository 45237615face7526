"""Bundled topologies in which every agent writes many texts, of few prompts: what tests compare of them is the same."""

from __future__ import annotations

from kdmesh.spec import MeshSpec
from kdmesh.spec.read import read_mesh

FEW = {
    "debate": ("data.dataset.sums.below=5", "data.validation=4", "train.batch_size=8"),
    "star": (
        "data.dataset.sums.below=5",
        "data.validation=4",
        "streams.few.size=12",
        "train.batch_size=4",
        "connect.0.star.sampling={max_new_tokens: 3, samples: 4}",  # greedily, who learned this little says nothing
    ),
    "rationale": (
        "data.dataset.sums.below=5",
        "data.validation=4",
        "streams.explained.sampling={max_new_tokens: 4, samples: 8}",
        "train.batch_size=4",
    ),
}


def topology(name: str) -> MeshSpec:
    """A bundled topology; of some, all but how much it has to answer and to learn."""
    return read_mesh(name, FEW.get(name, ()))
