"""What this package offers, by kdmesh's hooks. Reading it imports no torch."""

from __future__ import annotations

import kdmesh
from kdmesh.offers import Config, ConsensusOffer
from pydantic import Field


class AEKDConfig(Config):
    """Settings of `aekd`."""

    cap: float = Field(
        0.6, gt=0, le=1, description="largest coefficient C of one teacher; at least 1 / teachers is used"
    )
    iterations: int = Field(200, ge=1, le=100_000, description="steps of projected gradient descent")


CONSENSUS = [
    ConsensusOffer(
        "aekd",
        "kdmesh_gradient.aekd:AEKD",
        AEKDConfig,
        "the combination of the teachers' losses whose gradient is shortest, so that it goes against none of them",
        "Du et al., Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space, 2020",
        spaces=("gradient",),
    )
]


@kdmesh.hookimpl
def kdmesh_consensus() -> list[ConsensusOffer]:
    """The rule."""
    return CONSENSUS
