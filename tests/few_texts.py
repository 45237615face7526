"""Bundled topologies on few samples and, where agents write, few texts: what tests compare of them is the same."""

from __future__ import annotations

from typing import Any

from kdmesh.spec import MeshSpec
from kdmesh.spec.read import read_mesh

FEW = {
    "augment": ("data.train=48", "streams.new.sampling={max_new_tokens: 12, samples: 4}"),
    "debate": ("data.dataset.sums.below=4", "data.validation=4", "train.batch_size=8"),
    "star": (
        "data.dataset.sums.below=5",
        "data.validation=4",
        "streams.few.size=12",
        "train.batch_size=4",
        "connect.0.star.sampling={max_new_tokens: 3, samples: 4}",  # greedily, who learned this little says nothing
    ),
    "pate": ("agents.teacher.count=5", "data.train=256", "data.validation=60", "data.test=60"),  # of forty teachers
    "rationale": (
        "data.dataset.sums.below=5",
        "data.validation=4",
        "streams.explained.sampling={max_new_tokens: 4, samples: 4}",
        "train.batch_size=8",
    ),
}


def topology(name: str) -> MeshSpec:
    """A bundled topology; of some, all but how much it has to answer and to learn."""
    return read_mesh(name, FEW.get(name, ()))


def few_samples(name: str, data: str | dict[str, Any], train: int = 256) -> dict[str, Any]:
    """The field `data` of a bundled topology, of few samples."""
    given = {"dataset": data} if isinstance(data, str) else data
    few = {"validation": 60, "test": 60, "train": train}
    if name == "parties":  # whose classes are shared out
        del few["train"]
    return given if name in FEW else {**few, **given}
