"""The consensus `template` for kdmesh. kdmesh imports this module to list it: keep torch out of it."""

from __future__ import annotations

import kdmesh
from kdmesh.offers import Config, ConsensusOffer
from pydantic import Field


class Settings(Config):
    """What a mesh may set."""

    sharpness: float = Field(1.0, ge=0, description="how much more say a certain source has; at 0 all have the same")


OFFER = ConsensusOffer(
    name="template",
    factory="kdmesh_template.consensus:Template",
    config=Settings,
    summary="sources have more say the surer they are",
    paper="",
    spaces=("probs", "logits", "loss"),
)


@kdmesh.hookimpl
def kdmesh_consensus() -> list[ConsensusOffer]:
    """Offer it."""
    return [OFFER]
