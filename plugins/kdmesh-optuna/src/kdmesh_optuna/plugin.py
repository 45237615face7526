"""What this package offers, by kdmesh's hooks. Reading it does not import optuna."""

from __future__ import annotations

import kdmesh
from kdmesh.offers import Config, SamplerOffer
from pydantic import Field


class OptunaConfig(Config):
    """Settings of `optuna`."""

    startup: int = Field(10, ge=1, le=10_000, description="points that are drawn at random before it learns")


SAMPLERS = [
    SamplerOffer(
        "optuna",
        "kdmesh_optuna.sampler:Optuna",
        OptunaConfig,
        "tree-structured Parzen estimators, which learn where good points are",
        "Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011",
        adaptive=True,
    )
]


@kdmesh.hookimpl
def kdmesh_samplers() -> list[SamplerOffer]:
    """The sampler."""
    return SAMPLERS
